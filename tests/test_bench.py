"""bench: samples of reviews, the references, and the report of the figures."""

import io
import json
import runpy
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_reviews

from bench import __main__ as main
from bench import compare, corpus, markdown, plan, project, saved, sizes
from bench import roofline as roofs
from stages.lib.core import declarations
from stages.lib.encoder import packed
from stages.lib.report import seeds
from stages.lib.training import parts

MACHINE = {"device": "x", "threads": 2, "precision": "fp32", "torch": "2", "python": "3"}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Twelve reviews per split for bench.project, in the form of data/raw."""
    directory = tmp_path / "data/raw"
    write_reviews(directory, size=12)
    for path in directory.glob("*.csv"):
        pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
    monkeypatch.setattr(project, "ROOT", tmp_path)
    return directory


def test_a_sample_larger_than_the_reviews_repeats_them_with_two_words_swapped(raw, tmp_path):
    sizes = {"train": 36, "validation": 5, "test": 12}
    directory = project.sample(tmp_path / "sample", sizes)
    tables = {split: pq.read_table(directory / f"{split}.parquet") for split in sizes}
    assert {split: table.num_rows for split, table in tables.items()} == sizes
    whole = pq.read_table(raw / "train.parquet")
    words = sorted(sorted(text.split()) for text in whole["text"].to_pylist())
    sampled = sorted(sorted(text.split()) for text in tables["train"]["text"].to_pylist())
    assert sampled == sorted(3 * words)
    first, second = (tables["train"]["text"].to_pylist()[at : at + 12] for at in (0, 12))
    assert sorted(first) == sorted(whole["text"].to_pylist())
    assert first != second


def test_a_sample_many_times_over_is_of_the_same_reviews(raw, tmp_path):
    sizes = {"train": 5, "validation": 5, "test": 5}
    once, thrice = (
        pq.read_table(project.sample(tmp_path / f"{times}", sizes, times) / "train.parquet")
        for times in (1, 3)
    )
    words = [
        [sorted(text.split()) for text in table["text"].to_pylist()] for table in (once, thrice)
    ]
    assert words[1] == 3 * words[0]


def test_a_corpus_comes_in_shards_of_perturbed_copies(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
    monkeypatch.setattr(corpus, "SHARD", 16)
    monkeypatch.setattr(corpus, "OTHERS", 20)
    directory = corpus.write_shards(tmp_path / "corpus", 40)
    counts = {"train": 3, "validation": 2, "test": 2}
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        f"{split}-{shard:05}-of-{count:05}.parquet"
        for split, count in counts.items()
        for shard in range(count)
    )
    found = pa.concat_tables(pq.read_table(path) for path in sorted(directory.glob("train-*")))
    whole = pq.read_table(raw / "train.parquet").to_pylist()
    assert len(found) == 40
    for number, row in enumerate(found.to_pylist()):
        original = whole[number % 12]
        assert row["label"] == original["label"]
        assert sorted(row["text"].split()) == sorted(original["text"].split())


def test_the_figures_of_a_corpus_stand_beside_their_ratios():
    figures = {"small": {"seconds": 1.0, "memory_mb": 300.0}}
    figures |= {"large": {"seconds": 19.0, "memory_mb": 330.0}}
    figures |= {"seconds_ratio": 19.0, "memory_mb_ratio": 1.1}
    section = {"small": 50_000, "large": 1_000_000, "stages": {"svm": figures}, "date": "d"}
    text = markdown.write({"x, fp32": {"machine": MACHINE, "corpus": section}})
    (row,) = [line for line in text.splitlines() if line.startswith("| svm")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "svm", "1.0", "19.0", "19.0", "300", "330", "1.10"
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["tokenize", "pipeline", "lora"])
def test_a_reference_gives_time_samples_and_accuracy(raw, miniature, way, monkeypatch, capsys):
    settings = {
        "reviews": str(raw),
        "backbone": str(miniature),
        "seed": 0,
        "epochs": 1,
        "batch_size": 4,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "warmup": 0.0,
    }
    monkeypatch.setattr(sys, "argv", ["bench.theirs", way])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(settings)))
    runpy.run_module("bench.theirs", run_name="__main__")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["seconds"] > 0
    assert result["samples"] == (36 if way in ("tokenize", "pipeline") else 12)
    if way != "tokenize":
        assert 0 <= result["accuracy"] <= 1


def row(ours, theirs):
    timed = {"median": 2.0, "min": 1.0, "max": 3.0}
    figures = {
        f"{side}_{figure}": timed
        for side in ("ours", "theirs")
        for figure in ("seconds", "reviews_per_second", "process_seconds")
    }
    accuracies = {
        "ours_accuracy": compare._interval(ours, 1000),
        "theirs_accuracy": compare._interval(theirs, 1000),
    }
    return {"ours": "lora", "theirs": "lora", "ratio": timed} | figures | accuracies


def report(*rows, name="all"):
    section = {
        "rows": list(rows),
        "head_with_extraction": 3.0,
        "rounds": 3,
        "epochs": 1,
        "train": 100,
        "test": 1000,
        "date": "2026-01-01",
    }
    return markdown.write({"x, fp32": {"machine": MACHINE, name: section}})


def test_accuracies_agree_where_the_interval_of_their_difference_contains_zero():
    assert "0.800 / 0.810, agree" in report(row(0.80, 0.81))
    assert "0.700 / 0.810, differ" in report(row(0.70, 0.81))
    assert "0.810 / 0.700, differ" in report(row(0.81, 0.70))
    # Their own intervals overlap.
    assert "0.800 / 0.840, differ" in report(row(0.80, 0.84))


@pytest.mark.parametrize("name", ["embedded", "base"])
def test_models_that_have_hardly_learned_are_not_compared_by_accuracy(name):
    text = report(row(0.80, 0.84), name=name)
    assert "2.0 (1.0 to 3.0)" in text
    assert "accurac" not in text.partition("## Side by side")[2].partition("The following")[0]


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """The committed accuracies, of seed 0 and of a collected one, in the place of bench.compare."""
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    (tmp_path / "metrics").mkdir()
    right = {split: np.array([True] * 3 + [False]) for split in ("validation", "test")}
    scores = {split: {"accuracy": 0.75, "f1": 0.75} for split in right}
    runs = []
    for name, accuracy in (("finetune-full", 0.85), ("lora", 0.83)):
        content = json.dumps({"test": {"accuracy": accuracy}})
        (tmp_path / f"metrics/{name}.json").write_text(content)
        # Those on fewer reviews do not count.
        runs += [
            seeds.Run(name, 1, train, "f", "cpu", "fp32", scores, right) for train in (100, 8484)
        ]
    rows = {"rows": [seeds.row(run) for run in runs]}
    (tmp_path / "metrics/seeds.json").write_text(json.dumps(rows))


def test_each_run_adds_seeds_of_the_references_to_those_before(committed, monkeypatch):
    asked = []

    def reference(_, name, settings, seed):
        asked.append((name, settings[name], seed))
        return {"accuracy": 0.8 + seed / 100}

    monkeypatch.setattr(compare, "_reference", reference)
    monkeypatch.setattr(compare, "_settings", lambda _: {"full": 1, "lora": 2})
    first = compare.scores(None, 2, {})
    assert asked == [("full", 1, 0), ("full", 1, 1), ("lora", 2, 0), ("lora", 2, 1)]
    assert first["models"]["lora"] == {"ours": [0.83, 0.75], "theirs": [0.8, 0.81]}
    asked.clear()
    second = compare.scores(None, 1, first)
    assert asked == [("full", 1, 2), ("lora", 2, 2)]
    assert second["models"]["finetune-full"] == {
        "ours": [0.85, 0.75],
        "theirs": [0.8, 0.81, 0.82],
    }


def test_the_scores_of_seeds_have_the_interval_of_their_difference():
    sides = {"ours": [0.80, 0.82], "theirs": [0.70, 0.72]}
    section = {"date": "d", "models": {"lora": sides, "full": sides | {"theirs": [0.7]}}}
    found = cells(markdown.write({"x": {"machine": MACHINE, "scores": section}}))
    # Two values on each side whose standard deviations are 0.0141: the difference of the means has
    # the standard error 0.0141, and the quantile of t with two degrees of freedom is 4.303.
    both = ["lora", "0.810 ± 0.014 (2)", "0.710 ± 0.014 (2)", "+0.039 to +0.161"]
    assert both in found
    assert ["full", "0.810 ± 0.014 (2)", "0.700 (1)", ""] in found


def test_products_of_packed_weights_are_counted_like_others():
    linear = torch.nn.Linear(24, 40).requires_grad_(False)
    batch = {
        "input_ids": torch.ones(2, 5, dtype=torch.int64),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    states = torch.randn(2, 5, 24)
    results = [
        roofs.achieved(lambda _, of=forward: of(states), [batch], torch.float32)
        for forward in (linear, packed.PackedForward(linear))
    ]
    assert [result.flops_per_review for result in results] == [2 * 5 * 24 * 40] * 2
    assert results[0].useful == pytest.approx(0.8)


def roofline(share, useful=1.0):
    """Return the section of a machine whose LoRA step reaches `share` of the matrix product."""
    figures = {
        "precision": "fp32",
        "peak": 1e11,
        "shares": {"lora": share},
        "useful": {"lora": useful},
        "flops_per_review": {"lora": 1e9},
    }
    shapes = {"embedded": figures, "base": figures}
    return {"date": "d", "reviews": 1024} | shapes | {"of_all_lengths": 8484}


def cells(text):
    """Return the cells of each line of a table; other lines have one."""
    lines = text.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_another_machine_adds_a_column():
    machines = {
        "x, fp32": {"machine": MACHINE, "roofline": roofline(0.5)},
        "y, bf16": {"machine": MACHINE | {"device": "y"}, "roofline": roofline(0.4, 0.9)},
    }
    lines = markdown.write(machines).splitlines()
    rows = cells("\n".join(lines))
    (header,) = [row for row in rows if row[0] == "backbone"]
    figures = next(row for row in rows if row[0] == "the backbone of data/backbone")
    found = dict(zip(header, figures, strict=True))
    assert (found["share (A)"], found["useful (A)"]) == ("50%", "50%")
    assert (found["share (B)"], found["useful (B)"]) == ("40%", "36%")
    machines["y, bf16"]["roofline"] = roofline(0.0043, 0.5)
    assert "0.4%" in [cell for row in cells(markdown.write(machines)) for cell in row]
    assert "- A: x, 2 threads, fp32; torch 2, Python 3" in lines
    assert "- B: y, 2 threads, fp32; torch 2, Python 3" in lines
    (products,) = [line for line in lines if "GFLOP/s" in line and line.startswith("- A")]
    assert products.endswith("; batches of all lengths, from 8,484 reviews.")
    del machines["y, bf16"]["roofline"]["of_all_lengths"]
    older = [line for line in markdown.write(machines).splitlines() if "GFLOP/s" in line]
    assert older[0] == products
    assert older[1].endswith(
        "; training steps on the first batches of 1,024 reviews, which are padded more."
    )


def test_what_fell_by_more_than_a_tenth_is_listed():
    before = {"roofline": roofline(0.5), "embedded": {"rows": [row(0.8, 0.8)]}}
    slower = row(0.8, 0.8) | {"ratio": {"median": 1.7, "min": 1.0, "max": 3.0}}
    after = {"roofline": roofline(0.46), "embedded": {"rows": [slower]}}
    assert compare.fell(before, before) == []
    assert compare.fell(before, after) == ["lora against lora: 2 to 1.7 (-15%)"]
    assert compare.fell(before, {"roofline": roofline(0.5, useful=0.8)}) == [
        "roofline, embedded, lora: 0.5 to 0.4 (-20%)",
        "roofline, base, lora: 0.5 to 0.4 (-20%)",
    ]
    # Figures of a machine without the section say nothing, nor do those of other batches.
    assert compare.fell({}, after) == []
    older = roofline(0.9)
    del older["of_all_lengths"]
    assert compare.fell({"roofline": older}, after) == []


@pytest.fixture
def bench(raw, tmp_path, monkeypatch, capsys):
    """A function that runs `python -m bench` with a share of the LoRA step, and its output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/backbone").mkdir()
    (tmp_path / "metrics").mkdir()

    def run(share, *arguments, device="x"):
        monkeypatch.setattr(main, "run", lambda *_: roofline(share))
        monkeypatch.setattr(compare, "machine", lambda: MACHINE | {"device": device})
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        main.main()
        return capsys.readouterr().out

    return run


def test_a_run_keeps_the_figures_of_other_machines_and_sections(bench):
    old = {"machine": MACHINE, "nothing": {"ratio": 1.0}}
    main.RESULTS.write_text(json.dumps({"x, fp32": old, "y, fp32": old}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown, "write", ", ".join)
        assert bench(0.5, "--only", "roofline", device="z") == "x, fp32, y, fp32, z, fp32\n"
        bench(0.4, "--only", "roofline")
    written = json.loads(main.RESULTS.read_text())
    assert written["x, fp32"]["nothing"] == {"ratio": 1.0}
    assert written["x, fp32"]["roofline"]["embedded"]["shares"] == {"lora": 0.4}
    assert written["y, fp32"] == old
    assert written["z, fp32"]["roofline"]["embedded"]["shares"] == {"lora": 0.5}


def test_a_comparison_writes_nothing_and_fails_where_something_fell(bench):
    only = ["--only", "roofline"]
    with pytest.raises(SystemExit, match="has no figures of x, fp32: run 'make bench' here first"):
        bench(0.5, "--compare", *only)
    bench(0.5, *only)
    before = main.RESULTS.read_bytes(), main.REPORT.read_bytes()
    with pytest.raises(SystemExit) as ended:
        bench(0.49, "--compare", *only)
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        bench(0.4, "--compare", *only)
    assert ended.value.code == 1
    assert (main.RESULTS.read_bytes(), main.REPORT.read_bytes()) == before


@pytest.mark.parametrize(("bf16", "right"), [(2e11, False), (9e10, True)])
def test_auto_is_right_if_its_product_is_the_faster(monkeypatch, bf16, right):
    monkeypatch.setattr(compare.precision, "resolve", lambda _: "fp32")
    monkeypatch.setattr("bench.roofline.products", lambda _: {"fp32": 1e11, "bf16": bf16})
    found = compare.products()
    assert (found["auto"], found["right"]) == ("fp32", right)
    text = markdown.write({"x": {"machine": MACHINE, "precision": found | {"date": "d"}}})
    assert f"`auto` is fp32, which is {'' if right else 'not '}the faster one." in text


def test_the_batches_of_the_roofline_stand_for_all():
    """From four batches for each step, sorted by their longest review, one of the middle two."""
    size = 4 * roofs.BATCHES
    lengths = np.arange(size, 0, -1)
    batches = [[row] for row in range(size)]
    chosen = [lengths[row] for (row,) in roofs.of_all_lengths(batches, lengths)]
    assert chosen == list(range(3, size, 4))


def test_a_machine_that_slows_down_changes_no_share(monkeypatch):
    matrix = torch.ones(10, 10)
    machine = [speed for speed in (1.0, 0.1, 0.5) for batch in range(2)]
    speeds = {"product": iter(machine), "step": iter(machine)}
    order = []

    def now(what):
        order.append(what)
        return next(speeds[what])

    monkeypatch.setattr(roofs, "matmul_peak", lambda _: 10_000 * now("product"))
    monkeypatch.setattr(roofs, "best", lambda *_: 1 / now("step"))
    batch = {"input_ids": torch.zeros(2, 4), "attention_mask": torch.tensor([[1, 0], [1, 1]])}
    found = roofs.achieved(lambda _: matrix @ matrix, [batch, batch], torch.float32)
    # A product of two 10 x 10 matrices has 2,000 floating-point operations.
    assert found == roofs.Achieved(1_000, 5_000, 0.2, 1_000, 0.75)
    assert order == ["product", "step"] * 6


@pytest.mark.parametrize("asked", [["lora"], ["extraction", "full"]])
def test_the_steps_that_are_asked_for_are_measured(ran, asked, monkeypatch, capsys):
    monkeypatch.chdir(ran.path)
    monkeypatch.setattr(roofs, "matmul_peak", lambda *_: 1e9)
    taken, achieved = [], roofs.achieved

    def spy(step, data, *rest):
        taken.append(len(data))
        return achieved(step, data, *rest)

    monkeypatch.setattr(roofs, "achieved", spy)
    arguments = ["bench.roofline", "fp32", "--batches", "2", "--only", *asked]
    monkeypatch.setattr(sys, "argv", arguments)
    roofs.main()
    found = json.loads(capsys.readouterr().out)
    assert taken == [2] * len(asked)
    for figure in ("shares", "useful", "flops_per_review", "reviews_per_second"):
        assert list(found[figure]) == asked


def test_what_a_step_saves_is_counted_by_type_and_shape():
    hidden = [torch.zeros(32, 28, 384, dtype=torch.bfloat16) for _ in range(2)]
    tensors = [torch.zeros(3), *hidden, torch.zeros(896, 384), torch.zeros(28)]
    found = saved.table(tensors).to_dict("records")
    assert found == [
        {"type": "bfloat16", "shape": "32 x 28 x 384", "tensors": 2, "MB": "1.4"},
        {"type": "float32", "shape": "896 x 384", "tensors": 1, "MB": "1.4"},
        {"type": "all", "shape": "others", "tensors": 2, "MB": "0.0"},
    ]


def test_a_step_of_each_kind_is_tabulated(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran.path)
    monkeypatch.setattr(sys, "argv", ["bench.saved", "bf16"])
    saved.main()
    full, lora = (
        [row for row in cells(text) if row[0] in ("float32", "bfloat16", "int64", "all")]
        for text in capsys.readouterr().out.partition("lora, ")[::2]
    )
    for rows in (full, lora):
        assert sum(int(row[2]) for row in rows) > 20


class Stages:
    """A project in which a stage trains on 90 reviews/s, and a machine that becomes slower."""

    def __init__(self):
        self.done, self.bare = [], iter([130.0, 110.0, 90.0, 90.0])

    def set(self, section, **values):
        self.done.append((section, values))

    def module(self, name, *arguments):
        self.done.append((name, *arguments))
        step = arguments[-3] if name == "bench.roofline" else ""
        speed = next(self.bare) if name == "bench.roofline" else 0
        speeds = json.dumps({"reviews_per_second": {step: speed}})
        return project.Run(1.0, 200.0, f"a warning\n{speeds}\n")

    def read(self, path):
        assert path.startswith("metrics/costs/")
        return {"samples_per_second": 90.0}


def test_a_stage_is_compared_with_its_bare_steps_before_and_after_it(monkeypatch):
    monkeypatch.setattr(compare.precision, "resolve", lambda _: "bf16")
    there = Stages()
    section = compare.stages(there)
    assert section["stages"] == {
        "finetune-full": {"bare": 120.0, "whole": 90.0, "share": 0.75},
        "lora": {"bare": 90.0, "whole": 90.0, "share": 1.0},
    }
    bare = ("bench.roofline", "bf16", "--only", "lora", "--batches", "12")
    assert there.done[-4:] == [("lora", {"epochs": 1}), bare, ("stages.lora", "lora"), bare]
    found = cells(markdown.write({"x": {"machine": MACHINE, "stages": section | {"date": "d"}}}))
    assert ["finetune-full", "92%", "120", "90", "75%"] in found


@pytest.mark.parametrize(("section", "measured"), compare.GROWING.items())
def test_each_part_of_growth_measures_its_own_stages(monkeypatch, section, measured):
    """At ten times the data, these take eight times as long and twice the memory."""

    class Sized(Stages):
        def __init__(self, times):
            super().__init__()
            self.times = times

        def module(self, name, *arguments):
            self.done.append(name)
            return project.Run(1.0, 100.0 * self.times / 5, "")

        def read(self, path):
            if path == "metrics/download.json":
                return {"train": {"reviews": 2048}}
            return {"seconds": 0.8 * self.times}

    one, ten = Sized(5), Sized(10)
    monkeypatch.setattr(compare, "work", lambda there, name: {"seconds": 0.1 * there.times**3})
    found = compare.growth(one, ten, measured)
    assert list(found["stages"]) == list(measured)
    assert {row["memory_mb_ratio"] for row in found["stages"].values()} == {2.0}
    assert {row["seconds_ratio"] for row in found["stages"].values()} == {8.0}
    # A stage that trains needs tokens, whether or not their growth is measured.
    assert [name for name in one.done if str(name).startswith("stages.")][:2] == [
        "stages.download", "stages.tokenize"
    ]  # fmt: skip
    text = markdown.write({"x": {"machine": MACHINE, section: found | {"date": "d"}}})
    assert text.count("## Growth of") == 1
    assert [row[0] for row in cells(text) if row[-1] == "2.00"] == list(measured)


@pytest.mark.parametrize("known", [True, False])
def test_the_head_with_extraction_takes_the_times_of_the_same_rounds(known):
    class Once:
        def read(self, path):
            assert path == "metrics/costs/extract-cls-features.json"
            return {"seconds": 9.0}

    ours = {"finetune-head": [{"seconds": 1.0}]}
    theirs = {"head": [{"seconds": 20.0}]}
    rounds = {"extract-cls-features": [{"seconds": 4.0}]} if known else {}
    found = compare._head_with_extraction(Once(), ours | rounds, theirs)
    assert found == (4.0 if known else 2.0)


def test_the_spread_is_beside_the_median():
    assert "2.0 (1.0 to 3.0)" in report(row(0.8, 0.8))
    assert compare.spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3}


def test_time_and_price_of_more_reviews_follow_from_what_a_stage_did(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "METRICS", tmp_path)
    (tmp_path / "costs").mkdir()
    for name in plan.STEPS:
        (tmp_path / f"costs/{name}.json").write_text('{"samples_per_second": 100.0}')
    found = plan.table(0.5, [1e6, 7.2e7], plan.rates()).iloc[0]
    # 100 reviews per second are 360,000 per hour, or 720,000 per euro.
    assert found["reviews/euro"] == "720,000"
    assert found["1,000,000"] == "3 hours, 1.4 euros"
    assert found["72,000,000"] == "8 days, 100 euros"


def test_a_plan_takes_the_rates_of_a_machine_of_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "METRICS", tmp_path)
    stages = {name: {"samples_per_second": 7.0} for name in plan.STEPS}
    machines = {"x, fp32": {"machine": MACHINE}, "y, fp16": {"repro": {"stages": stages}}}
    (tmp_path / "bench.json").write_text(json.dumps(machines))
    assert plan.rates("y, fp16") == dict.fromkeys(plan.STEPS, 7.0)
    with pytest.raises(SystemExit, match="--machine x, fp32: 'dvc repro' was timed on: y, fp16"):
        plan.rates("x, fp32")


@pytest.mark.parametrize("asked", [False, True])
def test_a_retraining_is_timed_only_when_it_is_asked_for(bench, monkeypatch, asked):
    measured = []
    names = ("products", "stages", "scores", "repro")
    alone = ((corpus, "measure"), *((compare, name) for name in names))
    monkeypatch.setattr(main, "tokenized", lambda _: None)
    for module, name in alone:
        monkeypatch.setattr(module, name, lambda *_, name=name: measured.append(name) or {})
    monkeypatch.setattr(project, "Project", lambda *_, **__: None)
    monkeypatch.setattr(markdown, "write", str)
    bench(0.5, *(["--only", "repro"] if asked else []))
    assert measured == (["repro"] if asked else ["stages", "products", "measure"])


def test_steps_are_measured_at_each_size(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran.path)
    monkeypatch.setattr(roofs, "matmul_peak", lambda *_: 1e9)
    monkeypatch.setitem(sizes.SIZES, "cpu", ([64, 256], [4, 16], [32, 128]))
    monkeypatch.setitem(parts.TOKENS, "cpu", 128)
    monkeypatch.setattr(sys, "argv", ["bench.sizes", "fp32"])
    taken, achieved = [], roofs.achieved

    def spy(step, data, dtype):
        reviews = len(data[0]["input_ids"])
        most = max(batch["input_ids"].numel() for batch in data)
        taken.append((reviews, most <= 64, parts.TOKENS["cpu"]))
        if (reviews, parts.TOKENS["cpu"]) == (4, 128):
            raise torch.OutOfMemoryError
        return achieved(step, data, dtype)

    monkeypatch.setattr(roofs, "achieved", spy)
    sizes.main()
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["rows"]
    # The small budget is kept, and the large one is used.
    assert [fits for _, fits, _ in taken[:2]] == [True, False]
    training = [(4, 128), (16, 128), (16, 32)]
    assert [(reviews, most) for reviews, _, most in taken[2:]] == 2 * training
    assert printed.err.count("does not fit into the memory of the GPU") == 2
    assert [(row["step"], row.get("reviews"), row["tokens"]) for row in rows] == [
        ("extraction", None, 64),
        ("extraction", None, 256),
        *(("full", *size) for size in training[1:]),
        *(("lora", *size) for size in training[1:]),
    ]
    assert all(row["reviews_per_second"] > 0 and row["share"] > 0 for row in rows)
    assert [row["peak_memory_mb"] for row in rows] == [None] * len(rows)

    section = {"date": "d", "of_all_lengths": 24, "embedded": {"precision": "fp32", "rows": rows}}
    found = cells(markdown.write({"x": {"machine": MACHINE, "sizes": section}}))
    assert ["full", "16", "32"] in [row[1:4] for row in found]
    assert not any("MB (A)" in row for row in found)
    rows[-1]["peak_memory_mb"] = 1234.5
    found = cells(markdown.write({"x": {"machine": MACHINE, "sizes": section}}))
    assert any("MB (A)" in row for row in found)
    assert [row[-1] for row in found if row[1:3] == ["lora", "16"]] == ["", "1,234"]


def test_the_stages_of_a_retraining_stand_beside_their_scores():
    stages = {
        "tokenize": {"seconds": 0.2, "samples_per_second": 50_000.0},
        "lora": {"seconds": 30.0, "samples_per_second": 900.0, "peak_memory_mb": 357.4},
    }
    section = {"date": "d", "seconds": 333.1, "stages": stages, "accuracy": {"lora": 0.8416}}
    text = markdown.write({"x": {"machine": MACHINE, "repro": section}})
    found = cells(text)
    assert "- A (d): 333 s in all\n" in text
    assert ["tokenize", "0.2", "50,000", "", ""] in found
    assert ["lora", "30.0", "900", "0.842", "357"] in found
    text = markdown.write({"x": {"machine": MACHINE, "repro": section | {"seconds": None}}})
    assert "- A (d): not timed as a whole\n" in text


@pytest.mark.parametrize(("asked", "steps"), [({}, 1), ({"min_steps": None}, 300)])
def test_a_project_has_the_committed_parameters_and_seeds(tmp_path, asked, steps):
    there = project.Project(tmp_path / "there", tmp_path / "reviews", tmp_path / "b", **asked)
    committed, params = (
        declarations.read_yaml(str(path / "params.yaml")) for path in (project.ROOT, there.path)
    )
    assert (params["dataset"]["path"], params["backbone"]["path"]) == (
        str(tmp_path / "reviews"),
        str(tmp_path / "b"),
    )
    assert (committed["min_steps"], params["min_steps"]) == (300, steps)
    assert params["lora"] == committed["lora"]
    seeds = (project.ROOT / "metrics/seeds.json").read_bytes()
    assert (there.path / "metrics/seeds.json").read_bytes() == seeds


@pytest.mark.parametrize(
    ("auto", "device", "expected"),
    [("fp32", "cpu", "bf16"), ("fp32", "cuda", "fp16"), ("bf16", "cuda", "bf16")],
)
def test_fp32_is_compared_with_the_16_bit_precision_of_auto(monkeypatch, auto, device, expected):
    monkeypatch.setattr(compare.precision, "resolve", lambda _: auto)
    monkeypatch.setattr(compare.precision, "device", lambda: torch.device(device))
    assert compare.sixteen() == expected


def test_what_the_stages_of_a_retraining_report_is_collected(after):
    ran = []

    class Finished(project.Project):
        def __init__(self):
            self.path = after.path

        def run(self, *command):
            ran.append(command)
            return project.Run(12.34, 0.0, "")

    found = compare.repro(Finished())
    assert ran == [("dvc", "repro", "--quiet")]
    assert found["seconds"] == 12.3
    assert set(found["stages"]) == {"tokenize", "extract-cls-features", *found["accuracy"]}
    costs = after.read("metrics/costs/lora.json")
    assert found["stages"]["lora"]["samples_per_second"] == costs["samples_per_second"]
    assert found["accuracy"]["lora"] == after.read("metrics/lora.json")["test"]["accuracy"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("section", ["roofline", "sizes"])
def test_large_batches_of_the_larger_shapes_are_for_gpus(raw, monkeypatch, section, device):
    monkeypatch.setattr(main.precision, "device", lambda: torch.device(device))
    monkeypatch.setattr(main, "tokenized", lambda shape: shape)
    monkeypatch.setattr(compare, "steps", lambda shape, section: {"measured": (shape, section)})
    found = main.run(section, rounds=1, reviews=4)
    shapes = ["embedded"] if (section, device) == ("sizes", "cpu") else ["embedded", "base"]
    measured = {shape: {"measured": (shape, section)} for shape in shapes}
    assert found == measured | {"of_all_lengths": 12}
