"""The finished experiments of `dvc exp run`: their scores, and dvc.lock as each of them left it."""

from collections import Counter
from typing import Any

from ruamel.yaml import YAML

from commands import programs
from stages.lib.report import seeds as collection

SCORES = ("validation.accuracy", "validation.f1", "test.accuracy", "test.f1")

Json = dict[str, Any]


def finished(shown: list[Json]) -> tuple[list[Json], Counter]:
    """Split the output of `dvc exp show --json` into the finished experiments and the others.

    Returns the finished experiments, and the number of the others by state.
    """
    experiments: list[Json] = []
    others: Counter[str] = Counter()
    for baseline in shown:
        for experiment in baseline.get("experiments") or []:
            state = (experiment.get("executor") or {}).get("state", "success")
            tip = experiment["revs"][0]
            if state == "success" and not tip.get("error"):
                experiments.append(tip)
            else:
                others["failed" if state == "success" else state] += 1
    return experiments, others


def flat(tree: Json, prefix: str = "") -> Json:
    """Flatten nested sections: {"lora": {"r": 8}} becomes {"lora.r": 8}."""
    result: Json = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        result |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result


def settings(model: str, lock: Json) -> Json | None:
    """Collect everything that the result of the stage `model` depends on.

    That is the parameters and the hashes of code and data, of the stage itself and of the stages it
    depends on. Returns None if one of these stages was run again without it.
    """
    chain = collection.upstream(lock, model)
    if chain is None:
        return None
    made = collection.producers(lock)
    result: Json = {}
    for entry in chain.values():
        for file, values in entry.get("params", {}).items():
            result |= flat(values, "" if file == "params.yaml" else f"{file}:")
        for dep in entry.get("deps", []):
            if dep["path"] not in made:
                result[dep["path"]] = str(dep.get("md5"))[:7]
    return result


def measured(experiment: Json, lock: Json) -> tuple[list[Json], set[str]]:
    """Collect the scores of an experiment.

    Returns a row for each model that the experiment ran (name, seed, settings and scores), and the
    names of the models whose scores are from an earlier run with other parameters.
    """
    params = flat(experiment["data"]["params"]["params.yaml"]["data"])
    rows, stale = [], set()
    for path, file in experiment["data"]["metrics"].items():
        scores = flat(file.get("data") or {})
        model = path.removeprefix("metrics/").removesuffix(".json")
        if model not in lock or any(score not in scores for score in SCORES):
            continue
        used = settings(model, lock)
        if used is None or any(used[key] != params[key] for key in used.keys() & params.keys()):
            stale.add(model)
        else:
            # A model that reads no seed has the same run in each experiment.
            seed = used.pop("seed", None)
            row = {"model": model, "seed": seed, "settings": used}
            rows.append(row | {score: scores[score] for score in SCORES})
    return rows, stale


def lock_at(revision: str) -> Json:
    """Return the stages of dvc.lock as a revision has them, such as that of an experiment."""
    text = programs.at(revision, "dvc.lock")
    stages: Json = YAML(typ="safe", pure=True).load(text)["stages"]
    return stages
