"""Run the quick tests in environments that differ from this one, and print what failed in which.

    make matrix

Quick tests are those of the rooms, which train no model and run no stage through DVC. The tests of
the Hub are left out, because each starts a process. In a folder whose name has spaces and non-ASCII
letters, a miniature pipeline runs as well. Two environments are tried at a time, with one thread
each unless the environment says otherwise.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = ["tests/lib", "tests/test_declarations.py", "tests/test_tokenize.py",
         "--ignore=tests/lib/sources/test_hub.py"]  # fmt: skip
AT_ONCE = 2
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "1 thread": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 2": {"PYTHONHASHSEED": "2"},
    "time zone of India": {"TZ": "Asia/Kolkata"},
    "locale C without UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    # Not even root can write there.
    "a home that cannot be written": {"HOME": "/proc"},
    # DVC takes /bin/sh then, which may wait for the stage instead of becoming it.
    "no shell": {"SHELL": ""},
    "a narrow terminal without colours": {"COLUMNS": "40", "NO_COLOR": "1", "TERM": "dumb"},
    "unbuffered output": {"PYTHONUNBUFFERED": "1"},
    "the Turkish locale": {"LC_ALL": "tr_TR.UTF-8", "LANGUAGE": "tr:de"},
    "a launcher's leftovers": {"RANK": "1", "MASTER_ADDR": "nowhere"},
    "fp32": {"AUTO_PRECISION": "fp32"},
    "bf16": {"AUTO_PRECISION": "bf16"},
}


GIT = """
[init]
defaultBranch = trunk
[commit]
gpgsign = true
[core]
autocrlf = true
"""
DVC = """
[core]
autostage = true
[cache]
type = symlink
"""


def run(
    directory: Path, tests: list[str], prefix: str = "", umask: int = -1, **environment: str
) -> tuple[bool, str]:
    """Run tests in a copy of the project; returns whether they passed, and what to print."""
    done = subprocess.run(
        [*prefix.split(), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=directory,
        env=os.environ | environment,
        umask=umask,
        # As under cron: nothing can be read.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    lines = done.stdout.strip().splitlines() or ["nothing was printed"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, "\n".join([lines[-1], *failed])


def main() -> None:
    results: dict[str, Future[tuple[bool, str]]] = {}
    with ExitStack() as stack:
        home, parent = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        for path, text in {"dvc/config": DVC, "git/config": GIT}.items():
            (Path(home) / path).parent.mkdir()
            (Path(home) / path).write_text(text, encoding="utf-8")
        of_user = {
            "HOME": home, "XDG_CONFIG_HOME": home, "HF_HOME": f"{home}/hf", "TMPDIR": home,
            "DVC_GLOBAL_CONFIG_DIR": f"{home}/dvc",
        }  # fmt: skip
        copy = Path(parent) / "a folder of Zoë's, новый"
        ignored = shutil.ignore_patterns(".venv", "data", "tmp", "__pycache__", "cache", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        whole = "tests/test_dag.py::test_all_stages_ran_and_nothing_is_left_to_do"

        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        # After an interrupt, what waits for its turn is not run.
        stack.callback(pool.shutdown, cancel_futures=True)
        for name, environment in ENVIRONMENTS.items():
            results[name] = pool.submit(run, ROOT, QUICK, **environment)
        results |= {
            "1 core": pool.submit(run, ROOT, QUICK, prefix="taskset -c 0"),
            "umask 077": pool.submit(run, ROOT, QUICK, umask=0o077),
            "settings of git and DVC, folders elsewhere": pool.submit(run, ROOT, QUICK, **of_user),
            "a path with spaces and non-ASCII letters": pool.submit(
                run, copy, [*QUICK, whole], TMPDIR=str(copy)
            ),
        }
        for name, result in results.items():
            print(f"{name}: {result.result()[1]}", flush=True)
    sys.exit(not all(result.result()[0] for result in results.values()))


if __name__ == "__main__":
    main()
