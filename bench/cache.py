"""The cost of DVC's cache by bytes and by files: hashing, copies, links."""

import os
import shutil
from typing import Any

from tqdm import tqdm

from bench.project import Project

GIGABYTE = 1_000_000_000
LAYOUTS = {"one file": 1, "10,000 files": 10_000}
LINKS = ("copy", "hardlink")


def measure(project: Project) -> dict[str, Any]:
    """Time DVC's commands (in s) on a gigabyte, as one file and as many, copied and linked."""
    return {
        "layouts": {
            layout: {link: _session(project, files, link) for link in LINKS}
            for layout, files in tqdm(LAYOUTS.items(), unit="layout")
        }
    }


def _session(project: Project, files: int, link: str) -> dict[str, float]:
    place = project.path.with_name(f"{project.path.name}-{files}-{link}")
    there = Project(place, project.reviews, project.backbone)
    # Remove the pipeline, so that DVC looks only at the data added below.
    (place / "dvc.yaml").unlink()
    there.run("dvc", "config", "cache.type", link)
    data = place / "gigabyte"
    data.mkdir()
    for number in range(files):
        (data / f"{number:05}").write_bytes(os.urandom(GIGABYTE // files))
    seconds = {"add": there.run("dvc", "add", "--quiet", "gigabyte").seconds}
    seconds["status"] = there.run("dvc", "status").seconds
    shutil.rmtree(data)
    seconds["checkout"] = there.run("dvc", "checkout", "--quiet").seconds
    for path in data.iterdir():
        path.touch()
    seconds["status, all touched"] = there.run("dvc", "status").seconds
    shutil.rmtree(place)
    return {name: round(value, 2) for name, value in seconds.items()}
