"""Demonstrate the pipeline on 64 reviews per split, in a copy of the project.

    make demo, or python -m commands.demo

The copy has the files that git tracks and new files in stages, as they are in the workspace. It
shares DVC's cache with the workspace, so that a second demonstration takes seconds. The copy is
always removed at the end; the report is kept in tmp/demo.
"""

import argparse
import shutil
import sys
from pathlib import Path

from commands import apart, ending, programs, repro, terminal
from stages.lib.core import declarations, paths

REVIEWS = 64
KEPT = Path("tmp/demo")


def copy_project(copy: Path) -> None:
    """Copy the project's files to `copy`, a DVC repository of its own on 64 reviews per split."""
    with programs.repository() as mine:
        cache = mine.cache.local_cache_dir
        outputs = [Path(str(out)) for each in mine.index.stages for out in each.outs]
    known = programs.output("git", "ls-files", "-z")
    new = programs.output("git", "ls-files", "-z", "--others", "--exclude-standard", "--", "stages")
    for file in map(Path, filter(None, (known + new).split("\0"))):
        # Outputs of the whole data and DVC's records of them do not belong in the copy. The user's
        # own data that git does not track are read where they are.
        made = any(file.is_relative_to(output) for output in outputs)
        if file.is_file() and not made and file.name != "dvc.lock" and file.suffix != ".dvc":
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy / file)
    if Path(".dvc/config.local").is_file():
        shutil.copy(".dvc/config.local", copy / ".dvc")
    apart.isolate(copy, Path(cache))
    apart.set_params(copy, dataset__subset=REVIEWS)


def keep_report(copy: Path) -> Path:
    """Move the report to tmp/demo, in place of an earlier one, and return the path of its page."""
    kept = copy / "kept"
    kept.mkdir()
    for name in ("report.html", "report.md", "report"):
        shutil.move(copy / paths.METRICS / name, kept / name)
    shutil.rmtree(KEPT, ignore_errors=True)
    kept.rename(KEPT)
    return KEPT / "report.html"


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m commands.demo",
        description=f"The pipeline on {REVIEWS} reviews per split, apart from the workspace.",
    ).parse_args()
    console = terminal.console()
    stages = declarations.read_yaml("dvc.yaml")["stages"]
    print(
        f"Demonstration: {len(stages)} stages on {REVIEWS} reviews per split, two to six minutes "
        "on 2 cores.\nThe first time, up to 0.3 GB are downloaded. The workspace stays as it is.",
        flush=True,
    )
    with apart.directory("demo") as copy:
        copy_project(copy)
        if status := repro.reproduce(copy):
            sys.exit(status)
        title = f"Demonstration on {REVIEWS} reviews per split: not the scores of the whole data"
        repro.show_results(console, copy, title)
        page = keep_report(copy)
    print(f"Demonstration: {repro.answer(page.with_suffix('.md'))}")
    print(f"The demonstration's report: {page.resolve()}")


if __name__ == "__main__":
    ending.run(main)
