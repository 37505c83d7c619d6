"""The collection of runs in metrics/seeds.json: adding runs, and keeping them after a change."""

import io
import json
import sys
from collections import Counter
from collections.abc import Set
from dataclasses import replace

from commands import programs
from commands.experiments import Json, lock_at, measured
from stages.lib.core import declarations, metrics
from stages.lib.core.errors import InputError
from stages.lib.core.metrics import Download
from stages.lib.core.paths import COSTS, METRICS, PREDICTIONS
from stages.lib.models import registry
from stages.lib.report import seeds as collection
from stages.lib.report.seeds import Run

USES = "'dvc repro report' uses them"


def identities(lock: Json, download: Download) -> dict[str, tuple[str, int | None]]:
    """Return the fingerprint and the seed of each model that dvc.lock has."""
    found = {
        name: collection.identify(lock, name, download["reviews"]) for name in registry.names()
    }
    return {name: identity for name, identity in found.items() if identity}


def runs(
    experiment: Json, wanted: dict[str, tuple[str, int | None]], download: Download
) -> list[Run]:
    """Collect the runs of the models in `wanted` from an experiment, with the reviews that they get
    right.

    `wanted` has their fingerprints and seeds. Raises InputError if predictions are not at hand.
    """
    import pandas as pd
    from dvc.api import DVCFileSystem

    rev = experiment["rev"]
    files = DVCFileSystem(rev=rev)
    collected = []
    for model, (fingerprint, seed) in wanted.items():
        if seed is None:
            continue
        path = f"{PREDICTIONS}/{model}.csv"
        try:
            text = files.read_text(path, encoding="utf-8")
        except FileNotFoundError:
            raise InputError(
                f"{path}: experiment {rev[:7]} has none in DVC's cache: 'dvc exp pull' fetches "
                "it, or run the experiment again"
            ) from None
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        costs = json.loads(programs.at(rev, COSTS / f"{model}.json"))
        scores = experiment["data"]["metrics"][f"metrics/{model}.json"]["data"]
        collected.append(
            Run(
                model=model,
                seed=seed,
                train=download["train"]["reviews"],
                fingerprint=fingerprint,
                device=str(costs["device"]),
                precision=str(costs["precision"]),
                scores=scores,
                right={
                    str(split): (rows["label"] == rows["prediction"]).to_numpy()
                    for split, rows in table.groupby("split")
                },
            )
        )
    return collected


def merge(before: list[Run], collected: list[Run], current: dict[str, str]) -> list[Run]:
    """Merge collected runs into the earlier ones, without the runs that no longer count.

    The result has one run for each model, number of training reviews and seed, namely the last one
    collected, and is sorted by these three.
    """
    latest = {
        (run.model, run.train, run.seed): run
        for run in [*before, *collected]
        if current.get(run.model) == run.fingerprint
    }
    order = list(current)
    return sorted(latest.values(), key=lambda run: (order.index(run.model), run.train, run.seed))


def save(experiments: list[Json], locks: list[Json]) -> None:
    """Add the runs of experiments that count to the collection."""
    here = metrics.read(METRICS / "download.json", Download)
    lock_here = declarations.read_yaml("dvc.lock")["stages"]
    current = {name: identity[0] for name, identity in identities(lock_here, here).items()}
    collected: list[Run] = []
    outdated: set[str] = set()
    # DVC lists the newest first; the last run of a seed should win.
    for experiment, lock in reversed(list(zip(experiments, locks, strict=True))):
        download: Download = json.loads(programs.at(experiment["rev"], METRICS / "download.json"))
        models = {row["model"] for row in measured(experiment, lock)[0]}
        count = {
            name: identity
            for name, identity in identities(lock, download).items()
            if name in models and identity[0] == current.get(name)
        }
        outdated |= models - count.keys()
        collected += runs(experiment, count, download) if count else []
    write(collected, current, outdated)


def write(collected: list[Run], current: dict[str, str], others: set[str]) -> None:
    """Write the collection, and say what it has now; `others` are models with runs that do not
    count. Raises InputError if dvc.lock does not say which runs of a model count."""
    before = _collected(current.keys())
    merged = merge(before, collected, current)
    collection.write(merged)
    removed = {run.model for run in before if run.fingerprint != current.get(run.model)}
    if removed:
        print(
            f"removed: runs with earlier code, data or parameters, of {', '.join(sorted(removed))}",
            file=sys.stderr,
        )
    counts = Counter(run.model for run in merged)
    print(f"runs in {collection.PATH} now: {_listed(counts)}; {USES}", file=sys.stderr)
    if others:
        print(
            f"not saved: runs of {', '.join(sorted(others))} whose code, data or parameters "
            "differ from those in dvc.lock; 'dvc repro' brings dvc.lock up to date",
            file=sys.stderr,
        )


def keep(revision: str) -> None:
    """Keep the runs that counted at a revision, for each model that predicts now what it did then.

    The report leaves runs out after a change to code or libraries. Those of a model whose
    parameters are the same, and whose predictions in dvc.lock are the same bytes now as then, count
    again. A changed parameter may matter to other runs only, as min_steps does to small sets.
    """
    there: Download = json.loads(programs.at(revision, METRICS / "download.json"))
    lock_there, lock_here = lock_at(revision), declarations.read_yaml("dvc.lock")["stages"]
    before = identities(lock_there, there)
    now = identities(lock_here, metrics.read(METRICS / "download.json", Download))
    same = {
        name
        for name in before.keys() & now.keys()
        if _result(lock_there, name) == _result(lock_here, name)
    }
    runs = []
    kept, lost = Counter[str](), Counter[str]()
    for run in _collected(now.keys()):
        counted = run.model in before and run.fingerprint == before[run.model][0]
        if counted:
            (kept if run.model in same else lost)[run.model] += 1
        keeps = counted and run.model in same
        runs.append(replace(run, fingerprint=now[run.model][0]) if keeps else run)
    collection.write(runs)
    print(f"runs kept in {collection.PATH}: {_listed(kept)}; {USES}", file=sys.stderr)
    if lost:
        print(
            f"not kept: {_listed(lost)}, whose parameters or predictions are others at {revision}",
            file=sys.stderr,
        )


def _collected(current: Set[str]) -> list[Run]:
    """Read the collection. Raises InputError if dvc.lock does not say which of its runs count;
    `current` are the models of which it does."""
    runs = collection.read()
    known = {run.model for run in runs} & set(registry.names())
    if stale := sorted(known - current):
        raise InputError(
            f"dvc.lock: {', '.join(stale)}: not up to date, so that the runs collected before "
            "would be lost: run 'dvc repro' first"
        )
    return runs


def _result(lock: Json, model: str) -> tuple[Json, str]:
    """Return the parameters of the stages that lead to a model's predictions, and their hash."""
    made_by = collection.producers(lock)
    path = f"{PREDICTIONS}/{model}.csv"
    chain = collection.upstream(lock, made_by[path]) or {}
    parameters = {name: stage.get("params", {}).get("params.yaml") for name, stage in chain.items()}
    outs = {out["path"]: out["md5"] for out in lock[made_by[path]]["outs"]}
    return parameters, outs[path]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of {model}" for model, count in counts.items()) or "none"
