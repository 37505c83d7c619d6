"""Each statement of the report follows from the numbers: other numbers give another statement."""

import dataclasses
import json
import re

import experiment
import pytest

from stages import report
from stages.lib.core.errors import InputError
from stages.lib.report import (
    claims,
    data,
    differences,
    failures,
    labels,
    learning,
    others,
    overview,
    page,
    plots,
    recommendation,
    spread,
)
from stages.lib.report import training as trained
from stages.lib.report.content import LONGEST, Table, Text
from stages.lib.schema import params

# The number of wrong reviews of 1,000, the first ones for every model: full is best.
WRONG = {
    "svm": 270,
    "finetune-head": 260,
    "finetune-full": 190,
    "lora-2e-5": 300,
    "lora-2e-4": 230,
    "lora": 191,
}


@pytest.fixture
def of(tmp_path, monkeypatch):
    """Make Results with these wrong reviews, changing other files before they are read."""

    def make(wrong=None, changes=(), **options):
        experiment.write(tmp_path, wrong=WRONG | (wrong or {}), **options)
        for file, values in changes:
            experiment.change(tmp_path, file, **values)
        monkeypatch.chdir(tmp_path)
        return report.load()

    return make


def answer(results):
    choice = recommendation.choose(results)
    return recommendation.answer(results, choice)[0].markdown


def claim(results, words):
    judged = claims.judge(results, differences.of_all(results))
    return next(claim for claim in judged if words in claim.claim)


def prose(section):
    return " ".join(block.markdown for block in section.blocks if isinstance(block, Text))


# The recommendation


def test_a_cheaper_model_that_comes_close_enough_is_recommended(of):
    said = answer(of())
    assert said.startswith(
        "**Use lora.** finetune-full has the highest validation accuracy (0.810), but lora "
        "(0.809) comes close enough: the expected difference on new reviews is "
        "\N{MINUS SIGN}0.1 points (95% interval "
    )
    assert "lora trains 222,338 parameters instead of 22,713,218, took 1.7 min to train" in said
    assert "1.61 MB on disk instead of 91.6 MB. The rule below picks lora in 100% of the" in said
    assert "the accuracy of lora is 0.809 (95% interval 0.783 to 0.832)." in said
    assert "finetune-full is" not in said


def test_the_best_is_recommended_when_what_is_cheaper_is_worse(of):
    said = answer(of({"lora": 230}))
    assert said.startswith(
        "**Use finetune-full.** It has the highest validation accuracy (0.810). The best model "
        "that trains fewer parameters, lora-2e-4 (0.770), does not come close enough: the expected "
        "difference on new reviews is \N{MINUS SIGN}4.0 points"
    )


def test_the_cheapest_may_be_the_best(of):
    said = answer(of({"svm": 100}))
    assert said.startswith(
        "**Use svm.** It has the highest validation accuracy (0.900). No model trains fewer "
        "parameters. The rule below picks svm in 100% of the draws."
    )


def test_a_reader_chooses_between_models_that_cannot_be_told_apart(of):
    said = answer(of({"lora": 200}))
    assert said.startswith(
        "**lora and finetune-full cannot be told apart.** On 1,000 validation reviews, the rule "
        "below picks "
    )
    shares = re.search(r"picks (\S+) in ([\d.]+)% and (\S+) in ([\d.]+)% of the draws", said)
    assert {shares[1], shares[3]} == {"lora", "finetune-full"}
    assert float(shares[2]) + float(shares[4]) == pytest.approx(100)
    assert float(shares[2]) >= float(shares[4]) > 2.5
    assert (
        "Take lora where cost counts more than the accuracy that it may lose: compared with "
        "finetune-full, the expected difference on new reviews is \N{MINUS SIGN}1.0 points (95% "
        "interval "
    ) in said
    assert "but lora trains 222,338 parameters instead of 22,713,218" in said
    assert (
        "Take finetune-full, the most accurate of them on validation (0.810), where accuracy "
        "counts more than cost."
    ) in said
    assert (
        "the accuracy of lora is 0.800 (95% interval 0.774 to 0.824) and the accuracy of "
        "finetune-full is 0.810 ("
    ) in said


def test_the_decision_is_in_a_table(of):
    results = of({"lora": 200})
    choice = recommendation.choose(results)
    section = recommendation.section(results, choice)
    (table,) = [block for block in section.blocks if getattr(block, "key", "") == "picks"]
    assert table.columns[2:] == ["difference from finetune-full", "picked in"]
    assert [row[0] for row in table.rows] == [
        "svm", "finetune-head", "lora", "lora-2e-5", "lora-2e-4", "finetune-full",
    ]  # fmt: skip
    by_model = {row[0]: row for row in table.rows}
    assert by_model["svm"][2].text == "\N{MINUS SIGN}8.0"
    assert by_model["svm"][3] == "0%"
    assert by_model["lora"][2].text == "\N{MINUS SIGN}1.0"
    assert by_model["lora"][3] == recommendation._share(choice.picked["lora"])
    assert by_model["lora-2e-4"][3] == "not considered"
    assert by_model["finetune-full"][2].text == "\N{EN DASH}"


def test_a_share_is_rounded_to_all_or_nothing_only_if_it_is(of):
    shares = {0: "0%", 0.0004: "under 0.1%", 0.02: "2%", 0.6355: "63.5%", 0.9995: "over 99.9%"}
    shares |= {1: "100%"}
    assert {share: recommendation._share(share) for share in shares} == shares


FEW = {"svm": 9, "finetune-head": 8, "finetune-full": 5, "lora-2e-5": 9, "lora-2e-4": 7, "lora": 6}


def test_24_reviews_tell_little(of):
    said = answer(of(FEW, count=24))
    assert said.startswith(
        "**svm, finetune-head, lora and finetune-full cannot be told apart.** On 24 validation "
        "reviews, the rule below picks finetune-full in "
    )
    assert "Take svm where cost counts more than the accuracy that it may lose" in said
    assert "Take finetune-full, the most accurate of them on validation (0.792), where" in said
    assert "of svm is 0.625" in said
    assert "and the accuracy of finetune-full is 0.792" in said


def test_64_reviews_on_which_the_cheapest_is_best_do_not_exclude_another(of):
    wrong = {name: range(10 + 6 * number, 34 + 6 * number) for number, name in enumerate(WRONG)}
    said = answer(of(wrong | {"svm": range(22)}, count=64))
    assert " cannot be told apart.** On 64 validation reviews" in said
    assert said.startswith("**svm, ")
    assert (
        "svm trains the fewest parameters of them and has the highest validation accuracy (0.656). "
        "Take it unless accuracy counts far more than cost: these reviews cannot exclude that "
        "another one of them is up to "
    ) in said
    assert re.search(r"is up to 1\d\.\d points better on new reviews\.", said)


def test_the_cheapest_and_best_is_taken_where_the_other_is_not_likely_to_be_better(of):
    """The rule picks lora in 1.5% of the draws, the 97.5th percentile of its difference is 0."""
    wrong = dict.fromkeys(WRONG, range(5, 63)) | {"svm": range(10), "lora": range(8, 18)}
    results = of(wrong | {"lora": [*range(8, 10), *range(20, 28)]}, count=64)
    choice = dataclasses.replace(recommendation.choose(results), contenders=["svm", "lora"])
    said = recommendation.answer(results, choice)[0].markdown
    assert re.search(r"is up to \d+\.\d points better on new reviews\.", said)
    results = of(wrong | {"lora": range(2, 30)}, count=64)
    said = recommendation.answer(results, choice)[0].markdown
    assert (
        "highest validation accuracy (0.844). Take it: no other is likely to be better on" in said
    )
    assert "up to" not in said


def test_a_tie_is_stated_and_goes_to_the_cheapest(of):
    said = answer(of({"lora": 190}))
    assert said.startswith(
        "**Use lora.** On validation, lora and finetune-full have the same accuracy (0.810), and "
        "of these lora trains the fewest parameters. The best model that trains fewer parameters, "
    )
    everybody = answer(of(dict.fromkeys(WRONG, 100)))
    assert everybody.startswith(
        "**Use svm.** On validation, svm, finetune-head, lora-2e-5, lora-2e-4, lora and "
        "finetune-full have the same accuracy (0.900), and of these svm trains the fewest "
        "parameters. No model trains fewer parameters."
    )
    adapters = answer(of({"lora": 100, "lora-2e-4": 100}))
    assert adapters.startswith(
        "**Use lora-2e-4.** On validation, lora-2e-4 and lora have the same accuracy (0.900). The "
        "best model that trains fewer parameters, finetune-head (0.740), does not come close"
    )
    dear = answer(of({"finetune-full": 150, "lora-2e-4": 150, "lora": 149, "svm": 151}))
    assert dear.startswith("**Use svm.** lora has the highest validation accuracy (0.851), but svm")
    two = answer(of({"finetune-full": 149, "lora-2e-4": 190, "lora": 149, "svm": 150}))
    assert two.startswith("**Use svm.** lora and finetune-full have the highest validation acc")


def test_the_rule_has_the_parameters_of_the_report(of, tmp_path):
    of()
    results = dataclasses.replace(report.load(), rule=params.Report(margin=0.02, share=0.9))
    said = recommendation.answer(results, recommendation.choose(results))[1].markdown
    assert "is at most 2 percentage points below that of the best" in said
    assert "If it picks one model in at least 90% of the draws, that model is recommended." in said
    assert (
        "the fewest models that together account for 90% of the draws cannot be told apart" in said
    )
    assert "10,000 bootstrap draws of the validation reviews. If" in said
    strict = dataclasses.replace(results, rule=params.Report(margin=0.01, share=0.975))
    said = recommendation.answer(strict, recommendation.choose(strict))[1].markdown
    assert "at most 1 percentage point below" in said
    assert "97.5%" in said


def test_the_choice_does_not_look_at_test(of, tmp_path):
    before = recommendation.choose(of())
    for name in ("lora", "finetune-full"):
        path = tmp_path / f"data/predictions/{name}.csv"
        lines = path.read_text().splitlines()
        changed = [
            line.replace("positive,positive", "positive,negative")
            if line.startswith("test")
            else line
            for line in lines
        ]
        path.write_text("\n".join(changed) + "\n")
    results = report.load()
    assert results.accuracy("lora", "test") < 0.5
    assert recommendation.choose(results) == before


def test_more_labels_change_no_sentence_but_that_of_f1(of):
    said = answer(of(labels=["bad", "so so", "good"]))
    assert said.startswith(
        "**Use lora.** finetune-full has the highest validation accuracy (0.810)"
    )
    results = report.load()
    read = recommendation._how_to_read(results)
    assert "F1 is the mean over the 3 labels (macro)." in read
    assert "They reflect the sampling of reviews, not the variation between seeds." in read


# Seeds


def test_one_seed_says_that_it_is_one_and_how_to_add_others(of, tmp_path):
    said = spread.sentence(of())
    assert said.startswith("Each model was trained once, so the intervals do not include how much")
    experiment.write_seeds(tmp_path, {}, 1000)
    said = spread.sentence(report.load())
    assert said == (
        "Each model was trained once (seed 0), so the intervals do not include how much a score "
        "changes with the seed. To add seeds, run `dvc exp run --queue -S 'seed=0,1,2,3,4'`, "
        "`dvc queue start`, `python -m commands.seeds --save` and `dvc repro report`."
    )
    assert spread.strips(report.load()) == []


@pytest.fixture
def with_seeds(of, tmp_path):
    """Make Results with WRONG and other seeds of these numbers of wrong reviews."""

    def make(seeds_of, wrong=None, **changes):
        of(wrong)
        rows = {name: [range(n) for n in numbers] for name, numbers in seeds_of.items()}
        experiment.write_seeds(tmp_path, rows, 1000, **changes)
        return report.load()

    return make


FOUR = {name: [n - 4, n - 2, n + 2, n + 4] for name, n in WRONG.items()}


def test_scores_of_several_seeds_are_means_with_standard_deviations(with_seeds):
    results = with_seeds(FOUR | {"svm": []})
    assert spread.sentence(results) == (
        "Scores are means over seeds (5 of finetune-head, finetune-full, lora-2e-5, lora-2e-4 and "
        "lora; 1 of svm), with the standard deviation over seeds. Costs, training curves and "
        "failures are those of the last run (seed 0), whose models are in data/models."
    )
    choice = recommendation.choose(results)
    section = recommendation.section(results, choice)
    tables = {block.key: block for block in section.blocks if isinstance(block, Table)}
    rows = {row[0]: row for row in tables["scores"].rows}
    # 190 wrong and four others: the standard deviation is sqrt((16 + 4 + 4 + 16) / 4) reviews.
    assert rows["finetune-full"][1].text == "0.810 \N{PLUS-MINUS SIGN} 0.003"
    low, high = map(float, rows["finetune-full"][1].detail.split("\N{EN DASH}"))
    assert 0.78 < low < 0.79
    assert 0.83 < high < 0.84
    assert rows["finetune-full"][2].detail == ""
    assert rows["svm"][1].text == "0.730"
    assert tables["scores"].caption.startswith("Scores, their standard deviation over seeds, 95%")
    assert "The number after \N{PLUS-MINUS SIGN} is the standard deviation" in prose(section)
    assert "the mean accuracy of lora is 0.809 (95% interval" in answer(results)
    assert (
        ", and, for a model with one seed, Wilson's for accuracy and the percentile bootstrap for "
        "F1, which cover the reviews alone. F1 is for the label positive."
    ) in prose(section)
    every = recommendation._how_to_read(with_seeds(FOUR))
    assert "which cover reviews and seeds. F1 is for the label positive." in every
    assert "and of the seeds (a hierarchical bootstrap; see the section on" in prose(section)
    shown = plots.shown(results)["seeds"]
    assert list(shown.columns) == ["model", "seed", "validation", "test"]
    assert [row[1:] for row in shown.rows if row[0] == "lora"] == [
        ["0", "0.809", "0.809"],
        ["1", "0.813", "0.813"],
        ["2", "0.811", "0.811"],
        ["3", "0.807", "0.807"],
        ["4", "0.805", "0.805"],
    ]
    assert [row[1:] for row in shown.rows if row[0] == "svm"] == [["0", "0.73", "0.73"]]
    (figure,) = [block for block in section.blocks if getattr(block, "key", "") == "seeds"]
    assert "lora from 0.805 to 0.813" in figure.finding


def test_a_mean_over_seeds_is_told_from_the_accuracy_of_one(with_seeds):
    both = {"lora": 200, "finetune-full": 190}
    said = answer(with_seeds({"finetune-full": [188, 192]}, wrong=both))
    assert "the accuracy of lora is 0.800 (" in said
    assert " and the mean accuracy of finetune-full is 0.810 (" in said
    said = answer(with_seeds({"lora": [198, 202]}, wrong=both))
    assert "the mean accuracy of lora is 0.800 (" in said
    assert " and the accuracy of finetune-full is 0.810 (" in said


def test_intervals_of_several_seeds_are_as_wide_as_the_seeds_are_apart(with_seeds):
    together = with_seeds({"lora": [191] * 4}).interval("lora", "test")
    apart = with_seeds({"lora": [91, 141, 241, 291]}).interval("lora", "test")
    assert apart.high - apart.low > 2 * (together.high - together.low)


def test_the_page_shows_every_seed(with_seeds):
    content = overview.write(with_seeds(FOUR))
    assert {figure.key for figure in content.figures} == set(content.data)
    html = page.render(content)
    assert "Accuracy of each seed (hollow), and beside it the mean with its 95% interval." in html
    assert content.figures[-1].key != "seeds"
    assert "seeds" not in {figure.key for figure in overview.write(with_seeds({})).figures}


def test_verdicts_of_several_seeds_come_from_the_bootstrap_of_seeds_and_reviews(with_seeds):
    results = with_seeds(FOUR | {"svm": []})
    compared = differences.of_all(results)
    section = differences.section(results, compared)
    assert compared["finetune-full", "svm"].verdict == "better"
    assert compared["svm", "finetune-full"].verdict == "worse"
    assert compared["finetune-full", "lora"].verdict == "cannot tell"
    turned = compared["svm", "finetune-full"].pair.interval
    assert compared["finetune-full", "svm"].pair.interval.low == -turned.high
    said = prose(section)
    assert "Each pair is compared by a hierarchical bootstrap, as Dror et al. (ACL 2018)" in said
    assert "Bouthillier et al. (MLSys 2021)" in said
    assert "The variation between seeds of svm is not included." in said
    (table,) = [block for block in section.blocks if getattr(block, "key", "") == "pairs"]
    assert table.columns == ["pair", "difference", "p", "p (Holm)"]
    whole = differences.section(with_seeds(FOUR), differences.of_all(with_seeds(FOUR)))
    assert "is not included" not in prose(whole)


def test_seeds_that_differ_more_than_the_models_take_a_verdict_back(with_seeds):
    """On the reviews of one seed, 30 to 0 is clear; the other seeds say the reverse as clearly."""
    alone = with_seeds({})
    assert differences.of_all(alone)["lora-2e-4", "finetune-head"].verdict == "better"
    both = {"lora-2e-4": [200, 260, 290, 200], "finetune-head": [260, 200, 210, 290]}
    found = differences.of_all(with_seeds(both))["lora-2e-4", "finetune-head"]
    assert found.verdict == "cannot tell"
    assert found.pair.interval.low < -0.02 < 0.02 < found.pair.interval.high


# The number of labels


@pytest.fixture
def with_sizes(of, tmp_path):
    """Make Results of 1,000 training reviews and, by other numbers of them, three seeds of models
    with these numbers of wrong reviews."""

    def make(sizes, wrong=None):
        of(wrong)
        rows = {
            size: {name: [range(n), range(n - 5), range(n + 5)] for name, n in by_model.items()}
            for size, by_model in sizes.items()
        }
        experiment.write_seeds(tmp_path, {}, 1000, rows)
        return report.load()

    return make


def curve(results):
    (section,) = learning.sections(results)
    return section.blocks[0].markdown


BAD = dict.fromkeys(WRONG, 450)


def test_without_other_numbers_of_training_reviews_there_is_no_learning_curve(of):
    results = of()
    assert learning.sections(results) == []
    assert learning.KEY not in {section.key for section in overview.write(results).sections}


def test_few_labels_are_enough_for_the_cheapest_model(with_sizes):
    results = with_sizes({300: BAD | {"svm": 350}, 100: BAD | {"svm": 400}})
    assert curve(results).startswith(
        "With no more than 300 training reviews, svm, which trains the fewest parameters, is as "
        "good as any other model, as far as the validation reviews can tell. With 1,000, lora is "
        "7.9 points better on validation (95% interval +"
    )
    assert curve(results).endswith(
        "From 300 to 1,000 reviews, the test accuracy of the best model on validation goes from "
        "0.650 (svm) to 0.810 (finetune-full), so more labels may still help."
    )
    assert not results.several_seeds


def test_where_a_model_that_costs_more_is_always_better_it_says_so(with_sizes):
    said = curve(with_sizes({100: BAD | {"lora": 195, "finetune-full": 194}}))
    assert said.startswith(
        "Even with 100 training reviews, svm, which trains the fewest parameters, is not the best "
        "choice. With 100, lora is 25.5 points better on validation (95% interval +"
    )
    assert said.endswith(
        "From 100 to 1,000 reviews, the test accuracy of the best model on validation goes from "
        "0.806 (finetune-full) to 0.810 (finetune-full), so more labels would hardly help."
    )


def test_the_cheapest_model_may_be_as_good_as_any_at_every_size(with_sizes):
    said = curve(with_sizes({100: BAD | {"svm": 400}}, wrong={"svm": 100}))
    assert said.startswith(
        "With up to 1,000 training reviews, svm, which trains the fewest parameters, is as good as "
        "any other model, as far as the validation reviews can tell. From 100 to 1,000 reviews, "
    )


def test_a_model_without_a_curve_is_left_out_and_sizes_are_those_of_all_others(with_sizes):
    some = {"svm": 400, "lora": 450}
    (section,) = learning.sections(with_sizes({50: {"svm": 410}, 100: some}))
    figure, table = section.blocks[1:3]
    assert list(figure.legend) == ["svm", "lora"]
    assert table.columns == ["training reviews", "svm", "lora", "choice"]
    assert [row[0] for row in table.rows] == ["100", "1,000"]
    assert table.rows[0] == ["100", "0.600 ± 0.005", "0.550 ± 0.005", "Use svm."]
    assert table.rows[1] == ["1,000", "0.730", "0.809", "Use lora."]
    assert section.blocks[0].markdown.startswith(
        "With no more than 100 training reviews, svm, which trains the fewest parameters of svm "
        "and lora, is as good as any other of these, as far as the validation reviews can tell."
    )
    bad = curve(with_sizes({100: {"lora": 450, "finetune-full": 200}}))
    assert bad.startswith(
        "Even with 100 training reviews, lora, which trains the fewest parameters of finetune-full "
        "and lora, is not the best choice of these. With 100, finetune-full is 25.0 points better"
    )


def test_one_model_alone_is_compared_with_no_other(with_sizes):
    assert curve(with_sizes({100: {"svm": 400}})) == (
        "From 100 to 1,000 reviews, the test accuracy of the best model on validation goes from "
        "0.600 (svm) to 0.730 (svm), so more labels may still help."
    )


def test_the_picture_has_every_size_in_its_table(with_sizes):
    results = with_sizes({100: BAD})
    content = overview.write(results)
    keys = [section.key for section in content.sections]
    assert keys.index(learning.KEY) == keys.index("differences") + 1
    rows = [row for row in content.data[learning.KEY].rows if row[0] == "svm"]
    assert rows == [
        ["svm", "100", "3", "0.55", "0.545", "0.555"],
        ["svm", "1000", "1", "0.73", "0.73", "0.73"],
    ]


def test_a_part_of_the_training_reviews_is_named(of):
    some = experiment.OWN["reviews"] | {"train": 1000}
    (warning,) = data.demonstration(of(provenance=experiment.OWN | {"reviews": some}))
    assert warning.markdown == (
        "**Only a part of the training reviews was used:** 1,000 (`dataset.train`). Scores, costs "
        "and recommendation are not those of the whole data."
    )


def test_rows_of_other_code_data_or_parameters_do_not_count(with_seeds, tmp_path):
    results = with_seeds({"svm": [260, 280], "lora": [191]}, fingerprint="of another day")
    assert not results.several_seeds
    said = spread.sentence(results)
    assert (
        "3 rows of `metrics/seeds.json` are not used, because code, data or parameters of svm and "
        "lora have changed since. If the change altered no prediction, `python -m commands.seeds "
        "--keep` lets them count again; otherwise, renew them with `dvc exp run --queue -S"
    ) in said
    assert said.startswith("Each model was trained once (seed 0)")
    (tmp_path / "dvc.lock").unlink()
    assert "3 rows of" in spread.sentence(report.load())
    results = with_seeds({"svm": [260, 280]})
    content = json.loads((tmp_path / "metrics/seeds.json").read_text())
    content["rows"][0]["fingerprint"] = "of another day"
    (tmp_path / "metrics/seeds.json").write_text(json.dumps(content))
    said = spread.sentence(report.load())
    assert said.startswith("Scores are means over seeds (2 of svm; 1 of finetune-head, ")
    assert "1 row of `metrics/seeds.json` is not used" in said


def test_seeds_of_a_model_that_is_no_longer_there_are_not_asked_for(with_seeds, tmp_path):
    with_seeds({"svm": [260]})
    content = json.loads((tmp_path / "metrics/seeds.json").read_text())
    content["rows"][0]["model"] = "of-old"
    (tmp_path / "metrics/seeds.json").write_text(json.dumps(content))
    assert "not used" not in spread.sentence(report.load())


def test_a_demonstration_does_not_call_the_seeds_outdated(with_seeds, tmp_path):
    with_seeds({"svm": [260]}, fingerprint="of the whole data")
    reviews = experiment.OWN["reviews"] | {"subset": 64}
    experiment.change(tmp_path, "metrics/download.json", reviews=reviews)
    said = spread.sentence(report.load())
    assert "not used" not in said
    assert "To add seeds, run" in said


def test_the_last_run_stands_for_its_own_seed_and_a_seed_counts_once(with_seeds, tmp_path):
    with_seeds({"svm": [260, 280]})
    content = json.loads((tmp_path / "metrics/seeds.json").read_text())
    again = content["rows"] + [row | {"seed": 0} for row in content["rows"]]
    (tmp_path / "metrics/seeds.json").write_text(json.dumps({"rows": again + content["rows"]}))
    results = report.load()
    assert [run.seed for run in results.seeds.others["svm"]] == [1, 2]
    assert results.runs("svm", "test").sum(1).tolist() == [730, 740, 720]
    assert results.seeds.unused == {}


def test_seeds_of_another_machine_are_said_to_be(with_seeds):
    said = spread.sentence(with_seeds({"lora": [190]}, precision="bf16"))
    assert said.endswith(
        "Some of the other seeds were run on another device or in another precision (cpu, 2 "
        "threads, bf16)."
    )


# The differences


def test_the_matrix_says_better_worse_or_cannot_tell(of):
    results = of()
    section = differences.section(results, differences.of_all(results))
    matrix = next(block for block in section.blocks if getattr(block, "key", "") == "matrix")
    verdicts = {
        (row[0], column): cell.text
        for row in matrix.rows
        for column, cell in zip(matrix.columns[1:], row[1:], strict=True)
    }
    assert verdicts["finetune-full", "svm"] == "better"
    assert verdicts["svm", "finetune-full"] == "worse"
    assert verdicts["finetune-full", "lora"] == verdicts["lora", "finetune-full"] == "cannot tell"
    assert "**14 of 15 are.**" in prose(section)
    assert "the other pair cannot be told apart: finetune-full and lora." in prose(section)


def test_p_is_corrected_for_all_pairs(of):
    """With 8 reviews that only one model gets right, p is 0.008: not small among 15 tests."""
    results = of(dict.fromkeys(WRONG, 200) | {"lora": 192})
    found = differences.of_all(results)["lora", "svm"]
    assert found.pair.p == pytest.approx(2 / 2**8)
    assert found.p > 0.05
    assert found.verdict == "cannot tell"


def test_all_or_none_of_the_pairs_differ(of):
    apart = of({name: 100 * number for number, name in enumerate(WRONG)})
    assert "all 15 pairs" in prose(differences.section(apart, differences.of_all(apart)))
    alike = of(dict.fromkeys(WRONG, 100))
    assert "We cannot tell" in prose(differences.section(alike, differences.of_all(alike)))


# The claims


@pytest.mark.parametrize(
    ("wrong", "strong", "improves"),
    [
        ({"svm": 270}, "does not hold", "holds"),
        ({"svm": 192}, "holds", "cannot tell"),
        ({"svm": 100}, "holds", "does not hold"),
    ],
)
def test_claims_on_the_svm_follow_from_the_paired_test(of, wrong, strong, improves):
    results = of(wrong)
    assert claim(results, "already strong").verdict == strong
    assert claim(results, "slightly improves").verdict == improves


def test_nothing_is_said_of_the_svm_when_reviews_are_few(of):
    results = of({"svm": 9, "finetune-full": 5, "lora": 6} | dict.fromkeys(
        ("finetune-head", "lora-2e-5", "lora-2e-4"), 7), count=24)  # fmt: skip
    assert claim(results, "already strong").verdict == "cannot tell"


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(230, "does not hold"), (189, "cannot tell"), (100, "holds")]
)
def test_lora_wins_when_it_is_better_than_all_published_models(of, wrong, verdict):
    assert claim(of({"lora-2e-4": wrong}), "wins").verdict == verdict


@pytest.mark.parametrize(
    ("cost", "words", "verdict"),
    [
        ({"trainable_parameters": 222_338}, "about 1%", "holds"),
        ({"trainable_parameters": 2_000_000}, "about 1%", "does not hold"),
        ({"size_bytes": 1_000_000}, "small part", "holds"),
        ({"size_bytes": 80_000_000}, "small part", "does not hold"),
        ({"peak_memory_mb": 500.0}, "less memory", "holds"),
        ({"peak_memory_mb": 950.0}, "less memory", "cannot tell"),
        ({"peak_memory_mb": 1500.0}, "less memory", "does not hold"),
        ({"peak_memory_mb": 500.0, "device": "cuda"}, "less memory", "cannot tell"),
        ({"samples_per_second": 150.0}, "less time", "holds"),
        ({"samples_per_second": 104.0}, "less time", "cannot tell"),
        ({"samples_per_second": 50.0}, "less time", "does not hold"),
    ],
)
def test_claims_on_costs_follow_from_the_costs(of, cost, words, verdict):
    assert claim(of(changes=[("metrics/costs/lora-2e-4.json", cost)]), words).verdict == verdict


def test_costs_are_of_the_device_and_precision_that_are_named(of):
    results = of()
    assert claim(results, "less memory").measured.endswith(
        "(+0%) at the peak in fp32 on cpu, 2 threads"
    )
    assert claim(results, "less time").measured.endswith(" in fp32 on cpu, 2 threads")
    assert "the verdict is about the device and precision that are named" in prose(
        claims.section(claims.judge(results, differences.of_all(results)), results.claims_costs)
    )
    there = of(changes=[("metrics/costs/lora-2e-4.json", {"device": "cuda"})])
    assert claim(there, "less time").measured.endswith(
        "; not comparable: cuda, fp32 and cpu, 2 threads, fp32"
    )


def test_why_adapters_save_little_memory_follows_from_the_tensors_of_a_step(of):
    minus = "\N{MINUS SIGN}"
    results = of()
    assert claims.tensors(results.claims_costs) == (
        "In one step on the 32 longest reviews (bf16; cpu, 2 threads), LoRA's tensors, compared "
        f"with those of full fine-tuning, take 313 MB against 660 MB ({minus}53%): gradients and "
        f"optimizer states 3 MB against 270 MB ({minus}99%), activations for the backward pass "
        f"240 MB against 300 MB ({minus}20%), and weights 70 MB against 90 MB ({minus}22%). The "
        "activations are those of the largest part of the batch that is computed at once. "
        "Adapters save gradients and optimizer states, but not most of the activations, which are "
        "77% of the tensors of LoRA. Whatever else is in a peak is temporary, or belongs to "
        "libraries and their caches."
    )
    allocated = experiment.MIXED["allocated"]
    few = allocated["lora"] | {"saved_activations_mb": 140.0}
    other = of(changes=[("metrics/costs/claims.json", {"allocated": allocated | {"lora": few}})])
    assert ". Adapters save gradients, optimizer states and activations. Whatever" in (
        claims.tensors(other.claims_costs)
    )


def test_every_cell_of_the_claims_is_shown_whole(of):
    results = of()
    judged = claims.judge(results, differences.of_all(results))
    texts = [text for one in judged for text in (one.claim, one.published, one.measured)]
    assert max(map(len, texts)) <= LONGEST


def test_claims_on_adapters_follow_from_what_was_measured(of):
    good = of()
    assert claim(good, "merged").verdict == claim(good, "swapped").verdict == "holds"
    merge = experiment.CLAIMS["merge"] | {"largest_logit_difference": 0.5}
    swap = experiment.CLAIMS["swap"] | {"predictions_that_differ": 3}
    bad = of(changes=[("metrics/claims.json", {"merge": merge, "swap": swap})])
    assert claim(bad, "merged").verdict == claim(bad, "swapped").verdict == "does not hold"
    assert "0.5 over 1,060 reviews (lora)" in claim(bad, "merged").measured


def test_the_size_of_an_adapter_is_a_share_of_the_models(of):
    found = claim(of(), "small part of a model's size")
    assert found.measured == "1.61 MB instead of 91.6 MB on disk: 1.8% of the size"
    assert found.verdict == "holds"
    large = of(changes=[("metrics/costs/lora-2e-4.json", {"size_bytes": 2 * 91_577_736})])
    large = claim(large, "small part of a model's size")
    assert large.measured.endswith(": 200.0% of the size")
    assert large.verdict == "does not hold"


def test_claims_on_mixed_precision_follow_from_what_was_measured(of):
    fast = of()
    assert claim(fast, "half of the memory").verdict == "holds"
    assert "(\N{MINUS SIGN}42%)" in claim(fast, "half of the memory").measured
    assert claim(fast, "is faster").verdict == "holds"
    # What was measured on one machine says nothing about another one.
    assert claim(fast, "half of the memory").measured.endswith(" on cpu, 2 threads")
    assert claim(fast, "is faster").measured.endswith(" as fast) on cpu, 2 threads")
    slow = experiment.MIXED["mixed"] | {"samples_per_second": 40.0, "peak_memory_mb": 1850.0}
    other = of(changes=[("metrics/costs/claims.json", {"mixed": slow})])
    assert claim(other, "half of the memory").verdict == "cannot tell"
    assert claim(other, "is faster").verdict == "does not hold"
    none = {"precision": None, "reason": "this CPU has no native bf16"}
    missing = of(changes=[("metrics/costs/claims.json", {"mixed": none})])
    assert claim(missing, "is faster").verdict == "not measured here"
    assert claim(missing, "is faster").measured == "this CPU has no native bf16 (cpu, 2 threads)"


def test_the_summary_counts_the_verdicts(of):
    results = of()
    judged = claims.judge(results, differences.of_all(results))
    holding = sum(claim.verdict == "holds" for claim in judged)
    assert f"{holding} of 11 claims hold here" in prose(
        claims.section(judged, results.claims_costs)
    )
    one = [dataclasses.replace(claim, verdict=claims.FAILS) for claim in judged[:-1]]
    one.append(dataclasses.replace(judged[-1], verdict=claims.HOLDS))
    assert claims._summary(one) == "1 of 11 claims holds here and 10 do not."


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(0.58, "\N{MINUS SIGN}42%"), (0.997, "+0%"), (1.003, "+0%"), (1.5, "+50%")],
)
def test_a_change_is_a_percentage_with_its_sign(ratio, shown):
    assert claims._change(ratio) == shown


# Training, failures, data


def test_a_loss_that_rises_again_is_told(of, tmp_path):
    results = of()
    assert prose(trained.section(results)).startswith(
        "No model's validation loss ends more than 5% above its minimum. The validation accuracy "
        "of finetune-head, finetune-full, lora-2e-5, lora-2e-4 and lora is highest in the last "
        "epoch: more epochs may help."
    )
    curves = tmp_path / "data/curves/lora/plots/metrics/validation"
    (curves / "loss.tsv").write_text("step\tloss\n10\t0.5\n20\t0.4\n30\t0.6\n")
    assert prose(trained.section(report.load())).startswith(
        "The validation loss of lora ends more than 5% above its minimum, although the validation "
        "accuracy is highest in the last epoch: a sign of overconfidence in errors. The "
        "validation accuracy of finetune-head, finetune-full, lora-2e-5 and lora-2e-4 is highest "
        "in the last epoch: more epochs may help."
    )
    (curves / "accuracy.tsv").write_text("step\taccuracy\n10\t0.7\n20\t0.8\n30\t0.8\n")
    assert prose(trained.section(report.load())).startswith(
        "The validation loss of lora ends more than 5% above its minimum, and the validation "
        "accuracy is highest in an earlier epoch: longer training would not help. The"
    )


def test_one_epoch_has_no_course(of):
    assert "trained for one epoch" in prose(trained.section(of(epochs=1)))


def test_reviews_that_all_get_wrong_and_that_only_one_gets_right_are_listed(of):
    everyone = set(range(20))
    results = of({name: sorted(everyone | {30, 31}) for name in WRONG} | {"svm": list(everyone)})
    section = failures.section(results, "lora")
    tables = {block.key: block for block in section.blocks if hasattr(block, "rows")}
    assert tables["all-wrong"].caption.startswith("20 test reviews that all models get wrong; the")
    assert len(tables["all-wrong"].rows) == failures.SHOWN
    # The most confident come first.
    assert tables["all-wrong"].rows[0][0].text == results.texts[19]
    assert [row[0].text for row in tables["only-one-right"].rows] == [
        results.texts[31],
        results.texts[30],
    ]
    assert {row[2] for row in tables["only-one-right"].rows} == {"svm"}
    said = prose(section)
    assert "get 978 right (98%) and 20 wrong (2%); on 2, only one model is right." in said
    none = of(dict.fromkeys(WRONG, 0))
    assert "No test review is misclassified by all models." in prose(failures.section(none, "lora"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "lora makes no error on the test split."),
        ([1], "lora makes one error on the test split: positive taken for negative."),
        (
            [0, 1, 3],
            "lora makes 3 errors on the test split. The most common one is positive taken for "
            "negative (2 times).",
        ),
        (
            range(10),
            "lora makes 10 errors on the test split. The most common ones are negative taken for "
            "positive and positive taken for negative (5 times each).",
        ),
    ],
)
def test_the_most_common_errors_are_named(of, wrong, words):
    assert failures._most_confused(of({"lora": wrong}), "lora") == words


def test_errors_that_are_all_as_common_are_not_named(of):
    results = of({"lora": range(5)}, labels=["a", "b", "c", "d", "e"])
    assert failures._most_confused(results, "lora") == (
        "lora makes 5 errors on the test split. No label is taken for another more than once."
    )


def test_a_trend_with_length_is_told_when_it_is_one(of):
    short = [row for row in range(1000) if row % 30 < 5]
    said = prose(failures.section(of({"lora": short}), "lora"))
    assert "lora does better on the longest reviews than on the shortest" in said
    said = prose(failures.section(of({"lora": range(0, 1000, 7)}), "lora"))
    assert "The data do not show whether" in said


@pytest.mark.parametrize(
    ("provenance", "reviews", "words"),
    [
        (experiment.OFFICIAL, {}, "**Like for like:**"),
        (
            experiment.OFFICIAL,
            {"repository": "stanfordnlp/imdb"},
            "the reviews are from another dataset.",
        ),
        (experiment.OWN, {}, "from another dataset and the backbone is not distilbert"),
    ],
)
def test_whether_it_is_like_for_like_stands_below_the_scores(
    of, monkeypatch, provenance, reviews, words
):
    counts = dict.fromkeys(("train", "validation", "test"), 1000)
    monkeypatch.setattr("stages.lib.report.inputs.OFFICIAL_REVIEWS", counts)
    provenance = provenance | {"reviews": provenance["reviews"] | reviews}
    results = of(provenance=provenance)
    assert words in overview.write(results).sections[0].blocks[-1].markdown
    shown = prose(recommendation.section(results, recommendation.choose(results)))
    section = recommendation.section(results, recommendation.choose(results))
    (columns,) = [
        block.columns for block in section.blocks if getattr(block, "key", "") == "scores"
    ]
    assert ("published val. accuracy" in columns) == (words == "**Like for like:**"), shown


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "How should a DistilBERT be adapted to movie reviews?"),
        (
            {"backbone": {"repository": "answerdotai/ModernBERT-base"}},
            "How should this encoder be adapted to movie reviews?",
        ),
        (
            {"reviews": {"repository": "stanfordnlp/imdb"}},
            "How should a DistilBERT be adapted to these reviews?",
        ),
    ],
)
def test_the_question_names_what_was_adapted_to_what(of, changes, title):
    parts = experiment.OFFICIAL
    provenance = {what: parts[what] | changes.get(what, {}) for what in parts}
    assert overview.write(of(provenance=provenance)).title == title


def test_a_part_of_the_official_reviews_is_not_like_for_like(of):
    said = data.likeness(of(provenance=experiment.OFFICIAL)).markdown
    assert "**Not like for like:** only a part of the official reviews is used." in said


# As many of 1,000 wrong reviews as others report.
USUAL = {"svm": 200, "finetune-full": 160, "lora-2e-4": 170}


@pytest.fixture
def official(of, monkeypatch):
    """Make Results on the official reviews, of which there are 1,000 here, with this backbone."""
    counts = dict.fromkeys(("train", "validation", "test"), 1000)
    monkeypatch.setattr("stages.lib.report.inputs.OFFICIAL_REVIEWS", counts)

    def make(wrong, **changes):
        parts = experiment.OFFICIAL
        provenance = {what: parts[what] | changes.get(what, {}) for what in parts}
        return of(USUAL | wrong, provenance=provenance)

    return make


def test_scores_are_compared_with_what_others_report_on_the_same_data(official):
    (said,) = others.compare(official({}))
    assert said.kind == ""
    assert said.markdown == (
        "The test accuracies of svm (0.765\N{EN DASH}0.807), finetune-full (0.830\N{EN DASH}0.854) "
        "and lora-2e-4 (0.810\N{EN DASH}0.843) are within the ranges (in brackets) that others "
        "report in model cards and course notebooks on the Hub for the same reviews and backbone, "
        "and the published experiment."
    )


def test_a_score_outside_what_others_report_is_a_hint(official):
    results = official({"svm": 300, "finetune-full": 171, "lora-2e-4": 157})
    section = recommendation.section(results, recommendation.choose(results))
    blocks = list(section.blocks)
    (said,) = [block for block in blocks if getattr(block, "kind", "") == "warning"]
    assert said.markdown.startswith(
        "**Outside what others report:** the test accuracy of svm with 0.700 "
        "(0.765\N{EN DASH}0.807) and finetune-full with 0.829 (0.830\N{EN DASH}0.854). In brackets"
    )
    assert "This is a hint that something is set up wrongly" in said.markdown
    assert getattr(blocks[blocks.index(said) - 1], "key", "") == "scores"


@pytest.mark.parametrize(
    ("wrong", "inside"), [(193, True), (192, False), (235, True), (236, False)]
)
def test_the_ends_of_a_range_are_inside(official, wrong, inside):
    (said,) = others.compare(official({"svm": wrong}))
    assert (said.kind == "") == inside


@pytest.mark.parametrize(
    "changes",
    [
        {"reviews": {"repository": "stanfordnlp/imdb"}},
        {"backbone": {"repository": "answerdotai/ModernBERT-base"}},
        {"reviews": experiment.OWN["reviews"] | {"repository": None}},
        {"backbone": {"source": "pypi", "repository": None}},
    ],
)
def test_nothing_is_said_of_others_on_other_data_or_another_backbone(official, changes):
    assert others.compare(official({"svm": 300}, **changes)) == []


def test_nothing_is_said_of_others_on_a_subset(of):
    assert others.compare(of(provenance=experiment.OFFICIAL)) == []


def test_a_published_test_accuracy_is_one_that_others_report(monkeypatch):
    assert others.ranges()["svm"] == (0.765, 0.807)
    monkeypatch.setitem(others.PUBLISHED, "svm", ("0.82", "", "0.82"))
    assert others.ranges()["svm"] == (0.765, 0.82)


def test_duplicates_across_splits_and_imbalance_are_told(of):
    across = {"train_validation": 1, "train_test": 3, "validation_test": 0}
    results = of(changes=[("metrics/download.json", {"duplicates_across_splits": across})])
    said = prose(data.section(results))
    assert (
        "**Some texts are in more than one split** (1 in train and validation and 3 in train and "
        "test), so scores may be too high."
    ) in said
    assert "The labels are balanced" in said
    facts = results.download["train"] | {"labels": {"negative": 900, "positive": 100}}
    said = prose(data.section(of(changes=[("metrics/download.json", {"train": facts})])))
    assert (
        "The labels are not balanced: 90% of the training reviews and 50% of the test reviews are "
        "negative, so always predicting this label would give a test accuracy of 0.500."
    ) in said
    assert "No text is in more than one split" in said


@pytest.mark.parametrize(
    ("counts", "balanced"),
    [
        ({"a": 500, "b": 450}, True),
        ({"a": 500, "b": 449}, False),
        # Of many labels, the rarest one can be missing almost entirely.
        (dict.fromkeys("abcdefghi", 111) | {"j": 1}, False),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_balanced_if_none_is_much_rarer_in_training_or_test(of, counts, balanced, split):
    every = of().download["test"] | {"labels": dict.fromkeys(counts, 100)}
    facts = {"train": every, "validation": every, "test": every}
    facts[split] = every | {"labels": counts}
    found = data._balance(of(changes=[("metrics/download.json", facts)]).download)
    assert found.startswith("The labels are balanced") == balanced


def test_each_machine_is_named_with_its_models(of):
    assert data.machines(of()) == "cpu, 2 threads, fp32"
    slow = {"device": "cpu", "precision": "fp64"}
    results = of(changes=[("metrics/costs/svm.json", slow)])
    assert data.machines(results) == "cpu, 2 threads, fp32; svm: cpu, fp64"
    assert "measured once (cpu, 2 threads, fp32; svm: cpu, fp64)." in (
        recommendation._how_to_read(results)
    )


def test_medians_between_two_lengths_are_not_rounded(of):
    train = of().download["train"]
    short = train | {"words": train["words"] | {"p50": 2.0}}
    long = train | {"words": train["words"] | {"p50": 2.5}}
    results = of(changes=[("metrics/download.json", {"train": short, "test": long})])
    assert "their median length is 2.5 words, against 2." in prose(data.section(results))


# Labels that look wrong

LIST = "data/label-issues.csv"


def test_suspects_are_counted_and_the_list_is_named(of):
    said = prose(labels.section(of(suspects=30)))
    assert said.startswith(
        "Of 1,000 training reviews, 30 (3.0%) have labels that look wrong: a linear model that was "
        "not fitted on the review finds another label more probable. Read `data/label-issues.csv` "
        "from the top, and correct the wrong labels in your data. A suspect may also be "
        "the model's mistake: it gets 75.0% of the labels right."
    )
    assert "1 (0.1%) has a label that looks wrong" in prose(labels.section(of(suspects=1)))


def test_no_suspects_are_told_and_have_no_table(of):
    section = labels.section(of(suspects=0, ratings={"base_rate": 0.03, "precision": {}}))
    said = prose(section)
    assert said.startswith("No label looks wrong among 1,000 training reviews.")
    assert LIST not in said
    assert "rated" not in said
    assert not [block for block in section.blocks if isinstance(block, Table)]


@pytest.mark.parametrize(
    ("suspects", "words"),
    [
        (10, "10 suspected labels, with the label that the model suggests"),
        (11, "11 suspected labels; the 10 least probable"),
    ],
)
def test_the_table_has_the_first_ten_suspects(of, suspects, words):
    section = labels.section(of(suspects=suspects, labels=["1", "NA"]))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.caption.startswith(words)
    assert len(table.rows) == 10
    (review, *others) = table.rows[1]
    assert (review.text, review.kind) == ("word word", "review")
    assert others == ["NA", "1", "0.01", "2"]


def test_precision_stands_beside_the_base_rate(of):
    precision = {"50": 0.18, "100": 0.13, "200": 0.125, "300": 0.08}
    results = of(suspects=300, ratings={"base_rate": 0.0265, "precision": precision})
    assert (
        "Their mean rating contradicts the labels of 18.0% of the first 50, 13.0% of the first "
        "100, 12.5% of the first 200 and 8.0% of all 300 suspects, against 2.6% of all training "
        "reviews, so the list finds such labels more often than chance (binomial test, p < 0.001)."
    ) in prose(labels.section(results))
    assert "rated" not in prose(labels.section(of(suspects=300)))


def test_a_list_that_is_no_better_than_chance_is_no_evidence(of):
    results = of(suspects=20, ratings={"base_rate": 0.03, "precision": {"20": 0.05}})
    said = prose(labels.section(results))
    assert "5.0% of the 20 suspects, against 3.0% of all training reviews, which is no" in said
    assert "more often than chance (binomial test, p = 0." in said


# Inputs


@pytest.mark.parametrize(
    "file",
    [
        "metrics/claims.json",
        "metrics/costs/claims.json",
        "metrics/costs/lora.json",
        "metrics/label-issues.json",
    ],
)
def test_a_missing_file_is_named(of, tmp_path, file):
    of()
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=f"{file}: no such file; run the stage that writes it"):
        report.load()


def test_predictions_of_other_reviews_are_refused(of, tmp_path):
    of()
    path = tmp_path / "data/predictions/lora.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="lora and svm are not of the same test reviews"):
        report.load()


def test_labels_that_look_like_numbers_or_nothing_stay_text(of):
    results = of(labels=["1", "NA"])
    assert set(results.predictions["svm"]["test"]["label"]) == {"1", "NA"}


def test_a_subset_is_called_a_demonstration_at_the_top(of):
    subset = experiment.OFFICIAL["reviews"] | {"subset": 64}
    report = overview.write(of(provenance=experiment.OFFICIAL | {"reviews": subset}))
    assert report.title.startswith("Demonstration: ")
    assert "**This is a demonstration** on 64 reviews per split" in report.lead[0].markdown
    whole = overview.write(of(provenance=experiment.OFFICIAL))
    assert (whole.title.startswith("Demonstration"), list(whole.lead)) == (False, [])


def test_every_picture_has_its_data_with_several_seeds_too(with_seeds):
    written = overview.write(with_seeds(FOUR | {"svm": []}))
    assert {figure.key for figure in written.figures} == set(written.data)
    rows = written.data["seeds"].rows
    assert len(rows) == 5 * (len(FOUR) - 1) + 1
    assert rows[:3] == [
        ["svm", "0", "0.73", "0.73"],
        ["finetune-head", "0", "0.74", "0.74"],
        ["finetune-head", "1", "0.744", "0.744"],
    ]
