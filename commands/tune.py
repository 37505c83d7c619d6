"""Search for better parameters of a model.

    python -m commands.tune lora --trials 20

Optuna proposes values from the ranges in tuning.yaml. Each trial is a DVC experiment of the model's
stage, run outside the workspace and judged by validation accuracy; test scores are not read. The
first trial uses the values in params.yaml. An interrupted search continues with the same command:
finished trials are in tmp/tuning. This command is not a stage.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tabulate import tabulate

from commands import ending, programs, ranges, trials
from commands.experiments import flat
from commands.ranges import Space, Values
from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.models import registry
from stages.lib.report import content
from stages.lib.schema import params

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# A search ends after this many failed trials in a row, because the parameters are then unlikely to
# be the cause.
FAILURES = 3
BEST_SHOWN = 5


def depends_on(model: str) -> Values:
    """Return the present state of everything that a model's scores depend on, by name.

    That is the parameters, and the hashes of code and data, of its stage and the stages before it.
    """
    from dvc.dependency import ParamsDependency

    state: Values = {}
    with programs.repository() as repo:
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


def search(model: str, wanted: int) -> None:
    """Run trials until the study has this number of them, then print the best."""
    models = registry.names()
    if model not in models:
        raise InputError(f"{model}: no such model; {params.suggestion(model, models)}")
    space = ranges.read(model, models)
    trials.check_workspace()
    trials.check_queue()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    state = _state(model, space)
    with _only_one(model):
        trials.remove_leftovers(model)
        study = _study(model, state)
        done = len(study.trials)
        start = f"continues after {done} of {wanted} trials" if done else f"{wanted} trials"
        start = f"all {done} trials are done" if done >= wanted else start
        print(f"{model}: {start}; judged by validation accuracy", flush=True)
        _run_until(wanted, model, space, study, state)
        _finish(model, study, _present(model, space))


def _run_until(wanted: int, model: str, space: Space, study: "Study", state: Values) -> None:
    from optuna.trial import TrialState, create_trial

    failed = 0
    while len(done := study.trials) < wanted:
        trials.check_workspace()
        if changed := _changed(state, _state(model, space)):
            raise InputError(f"{changed} changed; run the same command again for a new search")
        present = _present(model, space)
        is_present = all(trial.user_attrs["values"] != present for trial in done)
        if is_present:
            values, proposed = present, present if ranges.fits(present, space) else {}
        else:
            values = proposed = _propose(space, done)
        name = trials.next_name(model, [trial.user_attrs["experiment"] for trial in done])
        attributes: Values = {"experiment": name, "values": values}
        start = time.monotonic()
        try:
            accuracy, cost = trials.run(model, name, {} if is_present else values)
        except trials.Failed as reason:
            if is_present:
                raise InputError(f"the values in params.yaml fail: {reason}") from None
            failed += 1
            outcome: Values = {"state": TrialState.FAIL}
            attributes["reason"] = str(reason)
        else:
            failed = 0
            outcome = {"value": accuracy}
            # A trial that the run cache restores took longer when it was trained.
            attributes["seconds"] = max(time.monotonic() - start, cost)
        study.add_trial(
            create_trial(
                params=proposed,
                distributions={key: space[key] for key in proposed},
                user_attrs=attributes,
                **outcome,
            )
        )
        print(_line(study, wanted), flush=True)
        if failed == FAILURES:
            raise InputError(
                f"{FAILURES} trials in a row failed, so the search stops; see {trials.log_of(name)}"
            )


def _propose(space: Space, done: list["FrozenTrial"]) -> Values:
    """Return the values of the next trial, which depend on nothing but the space and `done`.

    A sampler with a state of its own would repeat itself after an interruption.
    """
    import optuna

    scratch = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=len(done))
    )
    scratch.add_trials([trial for trial in done if trial.params])
    proposed = scratch.ask(dict(space)).params
    return {name: ranges.rounded(proposed[name], space[name]) for name in space}


def _present(model: str, space: Space) -> Values:
    section = declarations.read_yaml(params.PATH)[model]
    return {name: section.get(name) for name in space}


def _state(model: str, space: Space) -> Values:
    """Return what the trials of a study have in common, by name."""
    from optuna.distributions import distribution_to_json

    common = depends_on(model)
    for name in space:
        common.pop(f"{model}.{name}", None)
    described = {
        f"{ranges.PATH} {key}": distribution_to_json(value) for key, value in space.items()
    }
    return common | described


def _changed(before: Values, now: Values) -> str:
    """Name what differs between two states, and count it beyond the first three."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@contextlib.contextmanager
def _only_one(model: str) -> Iterator[None]:
    """Raise InputError if another process searches for the same model."""
    trials.DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (trials.DIRECTORY / f"{model}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{model}: another search of it is running") from None
        yield


def _study(model: str, state: Values) -> "Study":
    """Return the study of this state, a new one if its file has none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = trials.DIRECTORY / f"{model}.log"
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


def _completed(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that have a score, the best first; of equal ones, the earliest."""
    scored = [trial for trial in study.trials if trial.value is not None]
    return sorted(scored, key=lambda trial: -_accuracy(trial))


def _accuracy(trial: "FrozenTrial") -> float:
    assert trial.value is not None
    return trial.value


def _line(study: "Study", wanted: int) -> str:
    """Describe the last trial, the best one and the time left in one line."""
    last = study.trials[-1]
    values = " ".join(f"{key}={value}" for key, value in _values(last).items())
    head = f"{last.user_attrs['experiment']}  {values}"
    if last.value is None:
        return f"{head}  failed: {last.user_attrs['reason']}"
    completed = _completed(study)
    line = f"{head}  {last.value:.4f}  best {completed[0].value:.4f}"
    left = wanted - len(study.trials)
    if not left:
        return line
    seconds = [trial.user_attrs["seconds"] for trial in completed]
    return f"{line}  about {content.seconds(left * sum(seconds) / len(seconds))} left"


def _values(trial: "FrozenTrial") -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in trial.user_attrs["values"].items()
    }


def _finish(model: str, study: "Study", present: Values) -> None:
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
    if values == present:
        print(f"{name} has the values of params.yaml, and no trial is better: nothing to apply")
        return
    if name not in trials.experiments():
        # It was removed, or belongs to an earlier commit. The run cache has its results.
        try:
            trials.run(model, name, values)
        except trials.Failed as reason:
            raise InputError(f"{name}: {reason}") from None
    scores = {json.dumps(trial.user_attrs["values"]): trial.value for trial in completed}
    before = scores.get(json.dumps(present))
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


if __name__ == "__main__":
    ending.run(main)
