"""Each statement of the report follows from the numbers: other numbers give another statement."""

import experiment
import pytest

from stages import report
from stages.lib.core.errors import InputError
from stages.lib.report import claims, data, differences, failures, overview, recommendation
from stages.lib.report import training as trained
from stages.lib.report.content import Text

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


def test_the_cheapest_model_that_is_as_good_as_the_best_is_recommended(of):
    said = answer(of())
    assert said.startswith(
        "**Use lora.** On validation, finetune-full has the highest accuracy (0.810), but lora"
    )
    assert "trains 222,338 parameters instead of 22,713,218" in said
    assert "the accuracy of lora is 0.809 (95% interval 0.783 to 0.832)" in said


def test_the_best_is_recommended_when_what_is_cheaper_is_worse(of):
    said = answer(of({"lora": 230}))
    assert said.startswith(
        "**Use finetune-full.** It has the highest validation accuracy (0.810), and no model"
    )
    assert "the closest, lora-2e-4 (0.770), is worse (\N{MINUS SIGN}4.0 points" in said


def test_a_significant_loss_rules_a_model_out_even_within_the_margin(of):
    results = of({"lora": 205})
    found = recommendation.choose(results).against_best["lora"]
    assert found.verdict == "worse"
    assert found.pair.interval.low > -differences.MARGIN
    assert answer(results).startswith("**Use finetune-full.**")


def test_a_model_that_cannot_be_told_apart_for_lack_of_reviews_is_not_recommended(of):
    few = {"svm": 9, "finetune-head": 8, "finetune-full": 5, "lora-2e-5": 9, "lora-2e-4": 7}
    results = of(few | {"lora": 6}, count=24)
    choice = recommendation.choose(results)
    assert all(found.verdict == "cannot tell" for found in choice.against_best.values())
    assert answer(results).startswith("**Use finetune-full.**")
    rule = recommendation.answer(results, choice)[1].markdown
    assert "24 validation reviews are too few to tell whether svm, finetune-head" in rule


def test_a_tie_is_stated_and_goes_to_the_cheapest(of):
    said = answer(of({"lora": 190}))
    assert said.startswith(
        "**Use lora.** On validation, finetune-full and lora have the same accuracy, 0.810;"
    )
    everybody = answer(of(dict.fromkeys(WRONG, 100)))
    assert everybody.startswith("**Use svm.** On validation, finetune-head, ")
    assert "lora and svm have the same accuracy, 0.900" in everybody


def test_the_choice_does_not_look_at_test(of, tmp_path):
    before = recommendation.choose(of()).recommended
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
    assert recommendation.choose(results).recommended == before


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


def test_claims_on_adapters_follow_from_what_was_measured(of):
    good = of()
    assert claim(good, "merged").verdict == claim(good, "swapped").verdict == "holds"
    merge = experiment.CLAIMS["merge"] | {"largest_logit_difference": 0.5}
    swap = experiment.CLAIMS["swap"] | {"predictions_that_differ": 3}
    bad = of(changes=[("metrics/claims.json", {"merge": merge, "swap": swap})])
    assert claim(bad, "merged").verdict == claim(bad, "swapped").verdict == "does not hold"
    assert "0.5 over 1,060 reviews (lora)" in claim(bad, "merged").measured


def test_claims_on_mixed_precision_follow_from_what_was_measured(of):
    fast = of()
    assert claim(fast, "half of the memory").verdict == "holds"
    assert "(\N{MINUS SIGN}42%)" in claim(fast, "half of the memory").measured
    assert claim(fast, "is faster").verdict == "holds"
    slow = experiment.MIXED["mixed"] | {"samples_per_second": 40.0, "peak_memory_mb": 1850.0}
    other = of(changes=[("metrics/costs/claims.json", {"mixed": slow})])
    assert claim(other, "half of the memory").verdict == "cannot tell"
    assert claim(other, "is faster").verdict == "does not hold"
    none = {"precision": None, "reason": "this CPU has no native bf16"}
    missing = of(changes=[("metrics/costs/claims.json", {"mixed": none})])
    assert claim(missing, "is faster").verdict == "not measured here"
    assert claim(missing, "is faster").measured == "this CPU has no native bf16"


def test_the_summary_counts_the_verdicts(of):
    results = of()
    judged = claims.judge(results, differences.of_all(results))
    holding = sum(claim.verdict == "holds" for claim in judged)
    assert f"{holding} of 11 claims hold here" in prose(claims.section(judged))


# Training, failures, data


def test_a_loss_that_rises_again_is_told(of, tmp_path):
    results = of()
    assert "No model's validation loss rises again" in prose(trained.section(results))
    file = tmp_path / "data/curves/lora/plots/metrics/validation/loss.tsv"
    file.write_text("step\tloss\n10\t0.5\n20\t0.4\n30\t0.6\n")
    assert "The validation loss of lora rises by more than 5%" in prose(
        trained.section(report.load())
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
    columns = recommendation.section(results, recommendation.choose(results)).blocks[2].columns
    assert ("published val. accuracy" in columns) == (words == "**Like for like:**"), shown


def test_a_part_of_the_official_reviews_is_not_like_for_like(of):
    said = data.likeness(of(provenance=experiment.OFFICIAL)).markdown
    assert "**Not like for like:** only a part of the official reviews is used." in said


def test_duplicates_across_splits_and_imbalance_are_told(of):
    across = {"train_validation": 0, "train_test": 3, "validation_test": 0}
    results = of(changes=[("metrics/download.json", {"duplicates_across_splits": across})])
    said = prose(data.section(results))
    assert "**3 texts are in more than one split** (3 in train and test)" in said
    assert "The labels are balanced" in said
    facts = results.download["train"] | {"labels": {"negative": 900, "positive": 100}}
    said = prose(data.section(of(changes=[("metrics/download.json", {"train": facts})])))
    assert "90% of the training reviews are negative" in said
    assert "No text is in more than one split" in said


# Inputs


@pytest.mark.parametrize(
    "file",
    ["metrics/claims.json", "metrics/costs/claims.json", "metrics/costs/lora.json"],
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
