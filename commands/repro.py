"""Print what will run and for about how long, run the pipeline, and print the results.

    make repro, or python -m commands.repro

`dvc repro` does the work, and its exit status is kept. `dvc status` says what changed; the
durations are those of each stage's last run, from metrics/costs.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import ending, programs, terminal
from stages.lib.core import paths
from stages.lib.core.errors import InputError
from stages.lib.models import registry

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage
    from rich.console import Console

MARKDOWN, PAGE = paths.METRICS / "report.md", paths.METRICS / "report.html"
# The download takes as long as the connection needs for it: 115 MB from a package index, or 269 MB
# from the Hub.
DOWNLOAD = "up to 0.3 GB to download"
SHOWN = 3  # reasons for which a stage runs


@dataclass(frozen=True)
class Planned:
    """A stage that will run; `costs` are those of its last run, without a duration if none was
    measured.
    """

    name: str
    reasons: list[str]
    costs: dict[str, Any]

    @property
    def seconds(self) -> float | None:
        return self.costs.get("seconds")


def plan(repo: "Repo", changes: dict[str, list[Any]]) -> list[Planned]:
    """List the stages that `dvc repro` will run, in order; `changes` is what `dvc status` says.

    A stage runs when something it reads or its command changed, when an output is neither in place
    nor in DVC's cache, or after a stage that runs. DVC skips the last kind where the outputs of the
    earlier stage come out the same.
    """
    from networkx import topological_sort

    graph = repo.index.graph
    order = [each.addressing for each in repo.index.stages]
    planned: dict[str, Planned] = {}
    # Edges lead from a stage to those that it reads from.
    for each in reversed(list(topological_sort(graph))):
        before = [other.addressing for other in graph.successors(each)]
        made = {str(out) for other in graph.successors(each) for out in other.outs}
        reasons = list(_reasons(each, changes.get(each.addressing, []), made))
        if earlier := [name for name in before if name in planned]:
            reasons.append(f"after {max(earlier, key=order.index)}")
        if reasons:
            planned[each.addressing] = Planned(each.addressing, reasons, _costs(each))
    return sorted(planned.values(), key=lambda item: order.index(item.name))


def _reasons(each: "Stage", changes: list[Any], made: set[str]) -> Iterator[str]:
    """Yield the reasons why a stage runs, from its `changes` in `dvc status`.

    `made` are the outputs of other stages that it reads.
    """
    for change in changes:
        if isinstance(change, str):
            yield change
            continue
        for path, state in change.get("changed deps", {}).items():
            if isinstance(state, dict):
                yield from (f"{name} {found}" for name, found in state.items())
            elif state != "deleted" or not any(Path(out).is_relative_to(path) for out in made):
                yield f"{path} {state}"
        changed = change.get("changed outs", {})
        # DVC restores what its cache has.
        lost = [
            str(out)
            for out in each.outs
            if str(out) in changed and (not out.use_cache or out.changed_cache())
        ]
        if lost:
            yield f"no {lost[0]}" if len(lost) == 1 else f"no {lost[0]} and {len(lost) - 1} more"


def _costs(each: "Stage") -> dict[str, Any]:
    files = [Path(str(out)) for out in each.outs]
    return next((_json(file) for file in files if file.parent == paths.COSTS), {})


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object; it is empty when the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def show_plan(console: "Console", planned: list[Planned], total: int) -> None:
    """Print which stages will run, why, and about how long each takes."""
    from stages.lib.report import content

    known = [item.seconds for item in planned if item.seconds is not None]
    said = f"To run: {len(planned)} of {content.plural(total, 'stage')}"
    if known:
        longest = max(planned, key=lambda item: item.seconds or 0)
        device = longest.costs.get("device", "device unknown")
        said += f"; those that were measured take about {content.seconds(sum(known))} ({device})"
    console.print(f"{said}. Stages whose results are in DVC's cache take no time.")
    table = terminal.table()
    table.add_column("stage", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    for item in planned:
        more = [f"{len(item.reasons) - SHOWN} more"] if len(item.reasons) > SHOWN else []
        if item.seconds is not None:
            about = content.seconds(item.seconds)
        else:
            about = DOWNLOAD if item.name == "download" else "not measured"
        table.add_row(item.name, about, ", ".join(item.reasons[:SHOWN] + more))
    console.print(table, "")


def reproduce(directory: Path, *arguments: str) -> int:
    """Run `dvc repro` in a directory, and return its exit status as a shell would.

    A terminal sends Ctrl-C to DVC too, which then ends by itself. If anything else ends this
    process, it terminates DVC.
    """
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        command = [sys.executable, "-m", "dvc", "repro", *arguments]
        process = subprocess.Popen(command, cwd=directory)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def show_results(console: "Console", directory: Path, title: str = "") -> None:
    """Print the scores and costs of all models."""
    from stages.lib.report import content

    table = terminal.table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("val. accuracy", "test accuracy", "trained parameters", "time", "on disk"):
        table.add_column(name, justify="right")
    for model in registry.names():
        scores = _json(directory / paths.METRICS / f"{model}.json")
        costs = _json(directory / paths.COSTS / f"{model}.json")
        if scores and costs:
            table.add_row(
                model,
                *(f"{scores[split]['accuracy']:.3f}" for split in ("validation", "test")),
                f"{costs['trainable_parameters']:,}",
                content.seconds(costs["seconds"]),
                content.size(costs["size_bytes"]),
            )
    console.print("", table, "")


def answer(report: Path) -> str:
    """Return the first sentence of the answer to the report's first question, as plain text."""
    from markdown_it import MarkdownIt

    text = report.read_text(encoding="utf-8")
    section = text.partition("\n## 1. ")[2].partition("\n")[2]
    inline = next(token for token in MarkdownIt().parse(section) if token.type == "inline")
    plain = "".join(child.content for child in inline.children or [])
    return re.split(r"(?<=[.!?])\s", plain, maxsplit=1)[0]


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m commands.repro",
        description="Run dvc repro, with the plan before it and the results after it.",
    ).parse_args()
    console = terminal.console()
    planned = _plan_here(console)
    if planned == []:
        print("Nothing changed since the last run.")
    elif status := reproduce(Path.cwd()):
        sys.exit(status)
    else:
        show_results(console, Path())
    print(answer(MARKDOWN))
    print(f"The report: {PAGE.resolve()}")


def _plan_here(console: "Console") -> list[Planned] | None:
    """Show the plan and return it, or None when DVC cannot tell; `dvc repro` will say why.

    Raises InputError, which says more than DVC does, if dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            changes = repo.status()
            planned = plan(repo, changes)
            if planned:
                show_plan(console, planned, len(repo.index.stages))
                sys.stdout.flush()
            # Outputs that DVC will only restore need no plan.
            return planned if planned or not changes else None
    except DvcException as error:
        if programs.advice(error):
            raise InputError(programs.reason(error)) from None
        return None


if __name__ == "__main__":
    ending.run(main)
