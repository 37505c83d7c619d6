"""Rendering of the report as GitHub-flavoured Markdown."""

from tabulate import tabulate

from stages.lib.report.content import (
    Block,
    Cell,
    Figure,
    Items,
    Report,
    Table,
    Text,
    escape,
)


def render(report: Report, pictures: str) -> str:
    """Render the whole report; `pictures` is the folder of the figures' PNGs, relative to it."""
    parts = [f"# {report.title}", *(_block(block, pictures) for block in report.lead)]
    for number, section in enumerate(report.sections, start=1):
        parts.append(f"## {number}. {section.title}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: str) -> str:
    if isinstance(block, Text):
        return f"> {block.markdown}" if block.kind == "warning" else block.markdown
    if isinstance(block, Items):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Figure):
        return f"![{block.finding}]({pictures}/{block.key}.png)\n\n*{block.caption}*"
    return f"{_table(block)}\n\n*{block.caption}*"


def _table(table: Table) -> str:
    return tabulate(
        [[_cell(cell) for cell in row] for row in table.rows],
        headers=[escape(column) for column in table.columns],
        tablefmt="github",
        disable_numparse=True,
        colalign=[
            "left" if number == 0 or column in table.prose else "right"
            for number, column in enumerate(table.columns)
        ],
    )


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return f"{escape(cell.text)} ({escape(cell.detail)})" if cell.detail else escape(cell.text)
