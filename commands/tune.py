"""Search for better parameters of a model.

    python -m commands.tune lora --trials 20

Optuna proposes values from the ranges in tuning.yaml. Each trial is a DVC experiment of the model's
stage, run outside the workspace and judged by validation accuracy; test scores are not read. The
first trial uses the values in params.yaml. An interrupted search continues with the same command:
finished trials are in tmp/tuning. This command is not a stage.
"""

import argparse
import contextlib
import ctypes
import difflib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from tabulate import tabulate

from commands import ending, programs
from commands.seeds import flat
from stages.lib.core import declarations, stage
from stages.lib.core.errors import InputError
from stages.lib.core.paths import COSTS, METRICS
from stages.lib.models import registry
from stages.lib.schema import params

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANGES = "tuning.yaml"
STUDIES = Path("tmp/tuning")
# A search ends after this many failed trials in a row: their cause is hardly the parameters.
FAILURES = 3
BEST_SHOWN = 5
# Seconds that an interrupted experiment has to clean up before it is killed.
PATIENCE = 30

Values = dict[str, Any]
Number = int | float


class Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Bounds(Model):
    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None


class Choices(Model):
    choices: Annotated[list[bool | int | float | str], Field(min_length=2)]


class TrialFailed(Exception):
    """An experiment that gave no score; the message is its reason in one line."""


def read_ranges(model: str, models: tuple[str, ...]) -> dict[str, "BaseDistribution"]:
    """Read the ranges of a model's parameters, in the order of tuning.yaml.

    Raises InputError for the first mistake in any section.
    """
    content = declarations.read_yaml(RANGES)
    if not isinstance(content, dict):
        raise InputError(f"{RANGES}: expected sections such as 'svm', got {params.shown(content)}")
    current = declarations.read_yaml(params.PATH)
    params.parse(current)
    found: dict[str, dict[str, BaseDistribution]] = {}
    for name, section in content.items():
        if name not in models:
            raise InputError(f"{RANGES}: {name}: no such model; {_instead(str(name), models)}")
        if not isinstance(section, dict) or not section:
            raise InputError(f"{RANGES}: {name}: expected parameters with their ranges")
        found[name] = {
            parameter: _distribution(f"{name}.{parameter}", entry, current)
            for parameter, entry in section.items()
        }
    if model not in found:
        raise InputError(
            f"{RANGES}: {model}: no ranges; add a section with that name (there are: "
            f"{', '.join(found)})"
        )
    return found[model]


def _instead(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _distribution(name: str, entry: Any, current: Values) -> "BaseDistribution":
    from optuna import distributions

    where = f"{RANGES}: {name}"
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: {params.shown(entry)} is wrong: it should be such as "
            "{low: 1, high: 3} or {choices: [1, 2, 3]}"
        )
    kind: type[Bounds | Choices] = Choices if "choices" in entry else Bounds
    try:
        range_ = TypeAdapter(kind).validate_python(entry)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "missing":
            raise InputError(f"{where}.{key}: missing") from None
        if first["type"] == "extra_forbidden":
            known = tuple(kind.model_fields)
            raise InputError(f"{where}.{key}: unknown; {_instead(key, known)}") from None
        message = re.sub("^(Input|List) ", "", first["msg"])
        value = params.shown(first["input"])
        raise InputError(f"{where}.{key}: {value} is wrong: it {message}") from None
    if isinstance(range_, Choices):
        for choice in range_.choices:
            _check_value(name, choice, current)
        return distributions.CategoricalDistribution(range_.choices)
    low, high, log, step = range_.low, range_.high, range_.log, range_.step
    if low > high:
        raise InputError(f"{where}: low is {low}, which is more than high, {high}")
    if log and step:
        raise InputError(f"{where}: log and step exclude each other")
    if log and low <= 0:
        raise InputError(f"{where}: low is {low}, but with log it should be greater than 0")
    if step and abs((high - low) / step - round((high - low) / step)) > 1e-8:
        raise InputError(f"{where}: no whole number of steps of {step} leads from {low} to {high}")
    _check_value(name, low, current)
    _check_value(name, high, current)
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        return distributions.IntDistribution(low, high, log=log, step=step or 1)
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _check_value(name: str, value: Any, current: Values) -> None:
    """Raise InputError if params.yaml may not have this value."""
    section, _, parameter = name.partition(".")
    changed = current | {section: current[section] | {parameter: value}}
    try:
        params.parse(changed)
    except InputError as error:
        raise InputError(str(error).replace(params.PATH, RANGES, 1)) from None


def depends_on(model: str) -> Values:
    """Return the present state of everything that a model's scores depend on, by name.

    That is the parameters, and the hashes of code and data, of its stage and the stages before it.
    """
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    state: Values = {}
    with Repo() as repo:
        graph = repo.index.graph
        produced = {out.fs_path for each in repo.index.stages for out in each.outs}
        todo, seen = [repo.stage.load_one(name=model)], set()
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            todo += graph.successors(each)
            state[f"command of {each.addressing}"] = each.cmd
            for dep in each.deps:
                if isinstance(dep, ParamsDependency):
                    prefix = "" if str(dep) == params.PATH else f"{dep}:"
                    state |= flat(dep.read_params(), prefix)
                elif dep.fs_path not in produced:
                    state[str(dep)] = dep.get_hash().value if dep.exists else None
    return state


def search(model: str, trials: int) -> None:
    """Run trials until the study has this number of them, then print the best."""
    models = registry.names()
    if model not in models:
        raise InputError(f"{model}: no such model; {_instead(model, models)}")
    ranges = read_ranges(model, models)
    _check_workspace()
    _check_queue()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    state = _state(model, ranges)
    with _only_one(model):
        _sweep(model)
        study = _study(model, state)
        done = len(study.trials)
        start = f"goes on after {done} of {trials} trials" if done else f"{trials} trials"
        start = f"all {done} trials are done" if done >= trials else start
        print(f"{model}: {start}; judged by validation accuracy", flush=True)
        _run_until(trials, model, ranges, study, state)
        _finish(model, study, _today(model, ranges))


def _run_until(
    trials: int, model: str, ranges: Mapping[str, "BaseDistribution"], study: "Study", state: Values
) -> None:
    from optuna.trial import TrialState, create_trial

    failed = 0
    while len(done := study.trials) < trials:
        _check_workspace()
        if changed := _changed(state, _state(model, ranges)):
            raise InputError(f"{changed} changed; run the same command again for a new search")
        today = _today(model, ranges)
        is_today = all(trial.user_attrs["values"] != today for trial in done)
        if is_today:
            values, proposed = today, today if _fits(today, ranges) else {}
        else:
            values = proposed = _propose(ranges, done)
        name = _next_name(model, done)
        attributes: Values = {"experiment": name, "values": values}
        start = time.monotonic()
        try:
            accuracy, cost = run(model, name, {} if is_today else values)
        except TrialFailed as reason:
            if is_today:
                raise InputError(f"the values in params.yaml fail: {reason}") from None
            failed += 1
            outcome: Values = {"state": TrialState.FAIL}
            attributes["reason"] = str(reason)
        else:
            failed = 0
            outcome = {"value": accuracy}
            # A trial that the run cache has done took longer when it was trained.
            attributes["seconds"] = max(time.monotonic() - start, cost)
        study.add_trial(
            create_trial(
                params=proposed,
                distributions={key: ranges[key] for key in proposed},
                user_attrs=attributes,
                **outcome,
            )
        )
        print(_line(study, trials), flush=True)
        if failed == FAILURES:
            raise InputError(
                f"{FAILURES} trials in a row failed, so the search stops; see {_log(name)}"
            )


def _propose(ranges: Mapping[str, "BaseDistribution"], done: list["FrozenTrial"]) -> Values:
    """Return the values of the next trial, which depend only on the ranges and the trials done.

    A sampler with a state of its own would repeat itself after an interruption.
    """
    import optuna

    scratch = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=len(done))
    )
    scratch.add_trials([trial for trial in done if trial.params])
    proposed = scratch.ask(dict(ranges)).params
    return {name: _rounded(proposed[name], ranges[name]) for name in ranges}


def _rounded(value: Any, range_: "BaseDistribution") -> Any:
    """Round a float to the digits that matter, so that a user can copy it."""
    from optuna.distributions import FloatDistribution

    if not isinstance(range_, FloatDistribution):
        return value
    rounded = float(f"{value:.10g}" if range_.step else f"{value:.3g}")
    return min(max(rounded, range_.low), range_.high)


def _fits(values: Values, ranges: Mapping[str, "BaseDistribution"]) -> bool:
    """Return whether Optuna can learn from these values; it cannot from a list, as for svm.C."""
    from optuna.trial import create_trial

    try:
        create_trial(params=values, distributions=dict(ranges), value=0.0)
    except (TypeError, ValueError):
        return False
    return True


def _today(model: str, ranges: Mapping[str, "BaseDistribution"]) -> Values:
    section = declarations.read_yaml(params.PATH)[model]
    return {name: section.get(name) for name in ranges}


def _state(model: str, ranges: Mapping[str, "BaseDistribution"]) -> Values:
    """Return what the trials of a study have in common, by name."""
    from optuna.distributions import distribution_to_json

    common = depends_on(model)
    for name in ranges:
        common.pop(f"{model}.{name}", None)
    described = {f"{RANGES} {key}": distribution_to_json(value) for key, value in ranges.items()}
    return common | described


def _changed(before: Values, now: Values) -> str:
    """Name what differs between two states, and count it beyond the first three."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@contextlib.contextmanager
def _only_one(model: str) -> Iterator[None]:
    """Raise InputError if another process searches for the same model."""
    STUDIES.mkdir(parents=True, exist_ok=True)
    with (STUDIES / f"{model}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{model}: another search of it is running") from None
        yield


def _sweep(model: str) -> None:
    """Remove the copies of the workspace that killed searches of this model have left.

    `dvc exp show` would list them as running for ever.
    """
    for path in Path(".dvc/tmp/exps/standalone/run").glob("*/*.run"):
        about = json.loads(path.read_text(encoding="utf-8"))
        copy = Path(about["root_dir"])
        if copy.is_dir() and _numbered(model).fullmatch(about["name"] or ""):
            # Its stage may need a moment more to end, and write there.
            shutil.rmtree(copy, ignore_errors=True)
            shutil.rmtree(path.parent, ignore_errors=True)


def _numbered(model: str) -> re.Pattern[str]:
    return re.compile(rf"tune-{re.escape(model)}-(\d+)")


def _study(model: str, state: Values) -> "Study":
    """Return the study of this state, a new one if its file has none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = STUDIES / f"{model}.log"
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    name = f"{model}-{digest[:12]}"
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        others = storage.get_all_studies()
    except ValueError:
        raise InputError(
            f"{path}: broken; delete it, and a new search takes what it has in common with the "
            "old one from DVC's run cache"
        ) from None
    if any(other.study_name == name for other in others):
        return optuna.load_study(storage=storage, study_name=name)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.set_user_attr("state", state)
    if others:
        changed = _changed(others[-1].user_attrs.get("state", {}), state)
        print(f"{model}: a new search, because {changed} changed since the last", flush=True)
    return study


def _next_name(model: str, done: list["FrozenTrial"]) -> str:
    """Return the name of the next experiment, with a number that no earlier one has."""
    experiments = _git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()
    names = [*experiments, *(trial.user_attrs["experiment"] for trial in done)]
    numbers = [int(match[1]) for name in names if (match := _numbered(model).fullmatch(name))]
    return f"tune-{model}-{max(numbers, default=0) + 1:03}"


def run(model: str, name: str, changes: Values) -> tuple[float, float]:
    """Run an experiment of the model's stage with changed parameters, outside the workspace.

    Returns the validation accuracy and the seconds of training. Raises TrialFailed.
    """
    log = _log(name)
    settings = [
        part
        for key, value in changes.items()
        for part in ("--set-param", f"{model}.{key}={json.dumps(value)}")
    ]
    command = [
        sys.executable,
        "-m",
        "dvc",
        "exp",
        "run",
        "--temp",
        "--name",
        name,
        *settings,
        model,
    ]
    with log.open("wb") as file, _child(command, file) as child:
        status = child.wait()
    if status != 0:
        raise TrialFailed(f"{_reason(log, status)} ({log})")
    revision = _experiments().get(name)
    if revision is None:
        raise TrialFailed(f"DVC kept no experiment ({log})")
    scores = json.loads(_git("show", f"{revision}:./{METRICS / model}.json"))
    return scores["validation"]["accuracy"], _seconds(model, revision)


def _seconds(model: str, revision: str) -> float:
    try:
        costs = json.loads(_git("show", f"{revision}:./{COSTS / model}.json"))
    except InputError:
        return 0
    return costs.get("seconds", 0)


@contextlib.contextmanager
def _child(command: list[str], output: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process and its children as a group that ends whenever this process does."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_the_parent,  # noqa: PLW1509  # a single system call
    )
    try:
        yield child
    except BaseException:
        # An impatient user may interrupt again before the experiment has cleaned up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
                break
        raise


def _end_with_the_parent() -> None:
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _reason(log: Path, status: int) -> str:
    """Find the line of an experiment's output that best says why it failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for pattern in (r"error: (.*)", r"([\w.]*(?:Error|Exception)\b.*)", r"ERROR: (.*)"):
        found = [match[1] for line in lines if (match := re.match(pattern, line))]
        if found:
            return stage.printable(found[-1])
    return f"exit status {status}"


def _log(name: str) -> Path:
    return STUDIES / f"{name}.log"


def _experiments() -> dict[str, str]:
    """Return the revisions of the experiments on the last commit, by name."""
    head = _git("rev-parse", "HEAD").strip()
    refs = f"refs/exps/{head[:2]}/{head[2:]}"
    lines = _git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", refs).splitlines()
    return dict(line.split() for line in lines)


def _check_workspace() -> None:
    """Raise InputError unless experiments would start from what the user sees."""
    if not Path("dvc.lock").is_file():
        raise InputError("dvc.lock: no such file here; run 'dvc repro' and commit its results")
    changed = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(
            f"{changed[0][3:]}{more}: changed since the last commit, from which experiments "
            "start; 'git commit' or 'git stash' it, then run the same command again"
        )


def _check_queue() -> None:
    """Raise InputError if DVC's queue is running an experiment, which would compete for cores."""
    from dvc.repo import Repo

    if not Path(".dvc/tmp/exps/celery").is_dir():
        return
    with Repo() as repo:
        running = [entry.name or "?" for entry in repo.experiments.celery_queue.iter_active()]
    if running:
        raise InputError(
            f"DVC's queue is running {', '.join(running)}; wait for it ('dvc queue status') or "
            "stop it ('dvc queue stop --kill')"
        )


def _git(*arguments: str) -> str:
    return programs.output("git", *arguments)


def _completed(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that have a score, the best first; of equal ones, the earliest."""
    scored = [trial for trial in study.trials if trial.value is not None]
    return sorted(scored, key=lambda trial: -_accuracy(trial))


def _accuracy(trial: "FrozenTrial") -> float:
    assert trial.value is not None
    return trial.value


def _line(study: "Study", trials: int) -> str:
    """Describe the last trial, the best one and the time left in one line."""
    last = study.trials[-1]
    values = " ".join(f"{key}={value}" for key, value in _values(last).items())
    head = f"{last.user_attrs['experiment']}  {values}"
    if last.value is None:
        return f"{head}  failed: {last.user_attrs['reason']}"
    completed = _completed(study)
    line = f"{head}  {last.value:.4f}  best {completed[0].value:.4f}"
    left = trials - len(study.trials)
    if not left:
        return line
    seconds = [trial.user_attrs["seconds"] for trial in completed]
    return f"{line}  about {_duration(left * sum(seconds) / len(seconds))} left"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _values(trial: "FrozenTrial") -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in trial.user_attrs["values"].items()
    }


def _finish(model: str, study: "Study", today: Values) -> None:
    """Print the best trials, and how to apply the best one."""
    completed = _completed(study)
    best = completed[0]
    name, values = best.user_attrs["experiment"], best.user_attrs["values"]
    rows = [
        [trial.user_attrs["experiment"], f"{trial.value:.4f}", *_values(trial).values()]
        for trial in completed[:BEST_SHOWN]
    ]
    table = tabulate(
        rows, ["experiment", "val. accuracy", *values], tablefmt="plain", disable_numparse=True
    )
    print("", table, "", sep="\n")
    if values == today:
        print(f"{name} has the values of params.yaml, and no trial is better: nothing to apply")
        return
    if name not in _experiments():
        # It was removed, or belongs to an earlier commit. The run cache has its results.
        try:
            run(model, name, values)
        except TrialFailed as reason:
            raise InputError(f"{name}: {reason}") from None
    scores = {json.dumps(trial.user_attrs["values"]): trial.value for trial in completed}
    before = scores.get(json.dumps(today))
    against = f", the values of params.yaml have {before:.4f}" if before is not None else ""
    print(f"{name} has {best.value:.4f}{against}; to apply it:")
    print(f"    dvc exp apply {name}")
    print("then 'dvc repro' updates the report, and 'git commit --all' keeps the result")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m commands.tune",
        description="Search for better parameters of a model in the ranges of tuning.yaml.",
        epilog="The same command continues an interrupted search; a larger --trials extends it.",
    )
    parser.add_argument("model", help="a model with a section in tuning.yaml, such as lora")
    parser.add_argument(
        "--trials",
        type=_positive,
        default=20,
        help="trials in all, with earlier ones (default: 20)",
    )
    arguments = parser.parse_args()
    try:
        search(arguments.model, arguments.trials)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is wrong: it should be a whole number above 0")
    return int(text)


def quietly() -> None:
    """`main`, as `ending.quietly` ends it."""
    ending.quietly(main)


if __name__ == "__main__":
    stage.run(quietly)
