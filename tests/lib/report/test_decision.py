"""The answer stays the same when anything irrelevant changes: another seed, precision or sample.

`runs` has collections of the embedded source's runs, in the form of metrics/seeds.json: a file for
each precision. All runs of a file count as one experiment, whatever their fingerprints.
"""

from collections import Counter
from pathlib import Path

import experiment
import numpy as np
import pytest

from stages.lib.core import declarations
from stages.lib.report import recommendation, seeds, statistics
from stages.lib.schema import params

ROOT = Path(__file__).parents[3]
FILES = sorted((Path(__file__).parent / "runs").glob("*.json"))
RULE = params.parse(declarations.read_yaml(str(ROOT / "params.yaml"))).report
COSTS = {name: experiment.PARAMETERS.get(name, 222_338) for name in experiment.MODELS}


def decide(runs, costs=COSTS, rule=RULE):
    """Decide on the runs of each model (bool [seeds, reviews])."""
    draws = statistics.draw_accuracies(list(runs.values()))
    by_model = dict(zip(runs, draws.T, strict=True))
    accuracies = {name: float(right.mean()) for name, right in runs.items()}
    return recommendation.decide(accuracies, by_model, costs, rule)


def collected(file):
    """Return the validation reviews that each model gets right: bool [seeds, reviews] by model."""
    rows = seeds.read(file)
    return {
        name: np.stack([run.right["validation"] for run in rows if run.model == name])
        for name in dict.fromkeys(run.model for run in rows)
    }


@pytest.fixture(scope="module")
def statements():
    """The statement of each file as a whole, of each seed alone, and of 200 other samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "DRAWS", 500)
        made = []
        for file in FILES:
            runs = collected(file)
            variants = [runs]
            number, count = next(iter(runs.values())).shape
            variants += [
                {name: right[[seed]] for name, right in runs.items()} for seed in range(number)
            ]
            random = np.random.default_rng(0)
            variants += [
                {name: right[:, rows] for name, right in runs.items()}
                for rows in random.integers(count, size=(200, count))
            ]
            made += [decide(variant).statement for variant in variants]
        return made


def test_the_statement_is_the_same_in_nine_of_ten_samples_seeds_and_precisions(statements):
    (most_common, times), *_ = Counter(statements).most_common()
    assert statements[0] == most_common
    assert times / len(statements) >= 0.9, Counter(statements)


def test_a_model_is_used_only_if_nearly_all_draws_agree():
    right = np.ones((3, 1, 1000), bool)
    right[0, 0, :50] = right[1, 0, :10] = False
    runs = dict(zip(("cheap", "middle", "dear"), right, strict=True))
    costs = {"cheap": 1, "middle": 2, "dear": 3}

    def with_margin(margin):
        return decide(runs, costs, params.Report(margin=margin, share=0.975))

    assert with_margin(0.1).statement == "Use cheap."
    assert with_margin(0.1).picked == {"cheap": 1, "middle": 0, "dear": 0}
    assert with_margin(0.05).statement == "cheap and middle cannot be told apart."
    assert with_margin(0.025).statement == "Use middle."
    assert with_margin(0.01).statement == "middle and dear cannot be told apart."
    assert with_margin(0.0).statement == "Use dear."


def test_of_models_with_the_same_cost_only_the_most_accurate_is_a_candidate():
    right = np.ones((2, 1, 1000), bool)
    right[0, 0, :3] = False
    choice = decide(dict(zip("ab", right, strict=True)), {"a": 1, "b": 1})
    assert choice.statement == "Use b."
    assert choice.picked == {"b": 1}


def test_few_reviews_do_not_pass_for_certainty():
    """All models get all of 8 reviews right: the costs differ, the accuracies may."""
    runs = {name: np.ones((1, 8), bool) for name in COSTS}
    assert decide(runs).contenders == ["svm", "finetune-head", "lora-2e-5", "finetune-full"]
    many = {name: np.ones((1, 1000), bool) for name in COSTS}
    assert decide(many).statement == "Use svm."


def test_seeds_that_disagree_leave_the_choice_open():
    """The mean of the seeds is the same: what differs is how far they are apart."""
    full = np.ones((4, 1000), bool)
    full[:, :100] = False
    close, apart = full.copy(), full.copy()
    apart[:2, 100:150], apart[2:, 50:100] = False, True
    costs = {"lora": 1, "finetune-full": 2}
    assert apart.mean() == close.mean()
    together = {"lora": close, "finetune-full": full}
    assert decide(together, costs).statement == "Use lora."
    spread = {"lora": apart, "finetune-full": full}
    assert decide(spread, costs).statement == "lora and finetune-full cannot be told apart."
