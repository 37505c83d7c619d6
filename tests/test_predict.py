"""commands.predict: trained models on a user's texts."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from ruamel.yaml import YAML

from commands import ending, predict
from stages.lib.core.errors import InputError
from stages.lib.core.paths import MODELS
from stages.lib.models import prediction, registry
from stages.lib.reviews import texts

# Clear cases for the miniature's SVM, in whichever precision its vectors were extracted.
GOOD, BAD = "witty witty great", "it is dull and tedious"

# Run in the precision that `auto` means here, and then in the other one (see `make test`).
pytestmark = pytest.mark.precision


@pytest.fixture
def here(ran, monkeypatch):
    monkeypatch.chdir(ran.path)
    return ran


@pytest.fixture
def both(here, monkeypatch, capsys):
    """Run the command in this process; returns what it printed on both streams."""

    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        predict.main()
        return capsys.readouterr()

    return run


@pytest.fixture
def run(both):
    """Like `both`, but returns only standard output."""
    return lambda *args, **options: both(*args, **options).out


def lines(*reviews):
    return "".join(f"{review}\n" for review in reviews).encode()


def labels(printed):
    return [line.partition("\t")[0] for line in printed.splitlines()]


def test_the_models_are_the_projects(here):
    artifacts = YAML(typ="safe").load((here.path / "dvc.yaml").read_text())["artifacts"]
    assert list(artifacts) == list(registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_it_predicts_what_the_stage_reported_of_the_test_reviews(run, tmp_path, name):
    reported = pd.read_csv(f"data/predictions/{name}.csv")
    reported = reported[reported["split"] == "test"]
    output = tmp_path / "out.csv"
    file = "data/raw/test.parquet"
    run("--model", name, "--file", file, "--output", output, "--precision", "fp32")
    found = pd.read_csv(output)
    assert found["text"].tolist() == pd.read_parquet(file)["text"].tolist()
    assert found["label"].tolist() == reported["prediction"].tolist()
    assert np.allclose(found["probability"], reported["score"], rtol=0, atol=1e-5)


def test_a_text_has_its_label_and_probability_in_its_line(run):
    label, probability = run("--model", "svm", GOOD).rstrip("\n").split("\t")
    assert label == "positive"
    assert 0.5 < float(probability) <= 1
    assert labels(run("--model", "svm", BAD, GOOD)) == ["negative", "positive"]


@pytest.mark.parametrize("name", ["svm", "finetune-head", "lora"])
def test_a_model_may_be_named_by_its_path(run, tmp_path, name):
    elsewhere = shutil.copytree(f"data/models/{name}", tmp_path / "mine")
    assert run("--model", elsewhere, GOOD, BAD) == run("--model", name, GOOD, BAD)


def test_a_classifier_of_others_has_the_labels_and_the_limit_of_its_own(run, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(
        "data/backbone", num_labels=3, id2label={0: "x", 1: "y", 2: "z"}
    )
    base.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained("data/backbone").save_pretrained(tmp_path)
    (label,) = labels(run("--model", tmp_path, GOOD * 100))
    assert label in "xyz"


def test_what_is_read_and_how_makes_no_difference(run, tmp_path):
    reviews = [GOOD, BAD, f"{BAD}, {BAD}", GOOD, 'it is "great"']
    expected = run("--model", "lora", *reviews)
    assert len(expected.splitlines()) == 5
    (tmp_path / "a.txt").write_bytes(lines(*reviews))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(reviews)])
    pq.write_table(pa.table({"id": range(5), "text": reviews}), tmp_path / "a.parquet")
    assert run("--model", "lora", "--file", tmp_path / "a.txt") == expected
    assert run("--model", "lora", stdin=lines(*reviews)) == expected
    assert run("--model", "lora", "--file", "-", stdin=lines(*reviews)) == expected
    as_csv = ("--model", "lora", "--text-column", "review")
    assert run(*as_csv, "--file", tmp_path / "a.csv") == expected
    assert run(*as_csv, stdin=(tmp_path / "a.csv").read_bytes()) == expected
    assert run("--model", "lora", "--file", tmp_path / "a.parquet") == expected


def test_chunks_change_neither_order_nor_predictions(run, monkeypatch):
    reviews = [" ".join([BAD] * (1 + i % 4)) if i % 2 else GOOD for i in range(23)]
    expected = run("--model", "svm", stdin=lines(*reviews))
    assert labels(expected) == [("positive", "negative")[i % 2] for i in range(23)]
    monkeypatch.setattr(texts, "CHUNK", 4)
    assert run("--model", "svm", stdin=lines(*reviews)) == expected


def test_jsonl_has_text_label_and_probability(run, tmp_path):
    output = tmp_path / "out.jsonl"
    assert run("--model", "svm", GOOD, "", "é", "--output", output) == ""
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == [GOOD, "", "é"]
    assert list(rows[0]) == ["text", "label", "probability"]
    assert rows[0]["label"] == "positive"
    assert rows[1]["label"] is rows[1]["probability"] is None


def test_a_carriage_return_ends_no_row(run, tmp_path):
    text = f"{GOOD}\r{BAD}"
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": text}) + "\n")
    run("--model", "svm", "--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["text"].tolist() == [text]
    assert found["probability"].between(0.5, 1).all()


def test_an_empty_text_keeps_its_line_and_has_no_label(both):
    printed = both("--model", "svm", stdin=lines(GOOD, " ", BAD))
    assert labels(printed.out) == ["positive", "", "negative"]
    assert printed.err.endswith("warning: empty texts, which have no label: 1\n")


@pytest.mark.parametrize("name", ["svm", "finetune-head", "lora"])
def test_a_long_text_is_cut_where_training_did(here, name):
    """The limit is 32 tokens, two of which are [CLS] and [SEP]."""
    kept = ["great"] * 30
    model = prediction.load(MODELS / name, "fp32")
    first, longer, other = (
        model.probabilities([" ".join(words)])
        for words in (kept, [*kept, "dull"], [*kept[:-1], "dull"])
    )
    assert np.array_equal(longer, first)
    assert not np.array_equal(other, first)


def test_an_adapter_is_merged(here):
    assert not isinstance(prediction.load(MODELS / "lora", "fp32").network, PeftModel)


def test_an_adapter_that_differs_when_merged_is_not(here, monkeypatch):
    expected = prediction.load(MODELS / "lora", "fp32").probabilities([GOOD])

    def merge(self):
        merged = self.unload()
        torch.nn.init.constant_(merged.classifier.bias, 5)
        return merged

    monkeypatch.setattr(PeftModel, "merge_and_unload", merge, raising=False)
    model = prediction.load(MODELS / "lora", "fp32")
    assert isinstance(model.network, PeftModel)
    assert np.allclose(model.probabilities([GOOD]), expected, atol=1e-6)


def test_bf16_is_close_to_fp32(run):
    reviews = ("--model", "finetune-full", GOOD, BAD)
    found, expected = (
        [float(line.split("\t")[1]) for line in run(*reviews, "--precision", name).splitlines()]
        for name in ("bf16", "fp32")
    )
    assert found != expected
    assert np.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--model", "bert", GOOD],
            "--model bert: no such model or directory; the models are svm, finetune-head, "
            "finetune-full, lora-2e-5, lora-2e-4, lora",
        ),
        (["--model", "svm", "--file", "no.csv"], "no.csv: no such file"),
        (["--model", "svm", "--file", "data"], "data: not a file"),
        (
            ["--model", "svm", "--file", "dvc.yaml"],
            "dvc.yaml: '.yaml' cannot be read; it should be .txt, .parquet, .csv, .tsv or .jsonl",
        ),
        (
            ["--model", "svm", "--file", "data/raw/test.parquet", "--text-column", "review"],
            "data/raw/test.parquet: no column 'review'; the columns are: text, label",
        ),
        (
            ["--model", "svm", "--file", "data/raw/test.parquet", "--text-column", "label"],
            "data/raw/test.parquet: column 'label' holds int64, expected text",
        ),
        (["--model", "svm"], "standard input: no texts in it"),
        (["--model", "svm", GOOD, "--file", "-"], "texts and --file: give only one"),
        (["--model", "svm", "data/predictions/svm.csv"], "is a file: use --file data/predictions"),
        (
            ["--model", "svm", "--file", "params.csv", "--output", "./params.csv"],
            "--output params.csv: it is also the input (--file), which would be overwritten",
        ),
        (
            ["--model", "svm", GOOD, "--output", "dvc.yaml/out.csv"],
            "--output dvc.yaml/out.csv: dvc.yaml is not a directory",
        ),
        (["--model", "svm", GOOD, "--output", "out.txt"], "it should end in .csv or .jsonl"),
        (["--model", "data/raw", GOOD], "data/raw: not a model: it has no config.json or adapter_"),
        (["--model", "data/backbone", GOOD], "data/backbone: no trained classifier"),
        (
            ["--model", "svm", GOOD, "--precision", "fp16"],
            "--precision: 'fp16' is wrong: it needs a CUDA GPU",
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_a_wrong_input_is_one_line(run, here, tmp_path, monkeypatch, args, message):
    if "params.csv" in args:
        monkeypatch.chdir(tmp_path)
        Path("params.csv").write_text(f"text\n{GOOD}\n")
        args = [str(here.path / "data/models/svm") if arg == "svm" else arg for arg in args]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as error:
        run(*args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_is_not_here_is_said_with_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"'dvc repro lora' trains it, 'dvc pull data/models/lora"):
        run("--model", "lora", GOOD)


@pytest.mark.parametrize("name", ["svm", "lora"])
def test_a_model_without_its_base_says_so(run, here, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data/backbone'? does not exist; run this from the"):
        run("--model", here.path / "data/models" / name, GOOD)


def test_an_adapter_without_its_head_is_refused(run, tmp_path):
    from safetensors.torch import load_file, save_file

    directory = shutil.copytree("data/models/lora", tmp_path / "lora")
    weights = load_file(directory / "adapter_model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if ".classifier." not in name}
    assert len(left) == len(weights) - 2
    save_file(left, directory / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"no trained classifier: its weights lack classifier\."):
        run("--model", directory, GOOD)


def test_pickled_weights_are_not_read(run, tmp_path):
    directory = shutil.copytree("data/models/lora", tmp_path / "lora")
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors; weights in another"):
        run("--model", directory, GOOD)


def test_an_output_appears_whole_or_not_at_all(run, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "CHUNK", 2)
    output = tmp_path / "out.csv"
    output.write_text("before")
    with pytest.raises(InputError, match=r"^standard input: line 5: not UTF-8$"):
        run("--model", "svm", "--output", output, stdin=lines(*[GOOD] * 4) + b"\xff\n")
    assert output.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_reader_that_leaves_early_is_no_error(here, tmp_path):
    (tmp_path / "a.txt").write_bytes(lines(*[GOOD] * 5000))
    command = f"python -m commands.predict --model svm --file {tmp_path}/a.txt | head -n 1"
    done = here.run("bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_interrupt_ends_it_quietly(here, tmp_path):
    command = [sys.executable, "-m", "commands.predict", "--model", "svm"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # In a script's background job, tests ignore SIGINT, and so would the processes they start.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=here.path, **pipes) as process:
        signal.signal(signal.SIGINT, before)
        process.stdin.write(lines(*[GOOD] * texts.CHUNK))
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("--model svm --output OUT", "standard input is closed: give texts, or --file"),
        ("--model svm a", "standard output is closed: --output names a file to write instead"),
        (f"--model {'m' * 300} a", f"{'m' * 300}: file name too long"),
        (f"--model svm a --output {'o' * 300}.csv", "file name too long"),
        ("--model svm a --output /proc/o.csv", "--output /proc/o.csv: no such file or directory"),
    ],
)
def test_closed_streams_and_places_that_cannot_be_are_one_line(here, tmp_path, command, line):
    closed = "<&-" if "input" in line else ">&-" if "standard output" in line else ""
    command = command.replace("OUT", f"{tmp_path}/out.csv")
    # Torch takes seconds: whatever is wrong here is known before it is imported.
    spy = "import sys; sys.modules['torch'] = None; from commands import predict; "
    spy += f"sys.argv[1:] = {command.split()!r}; predict.ending.run(predict.main)"
    (tmp_path / "spy.py").write_text(spy)
    done = here.run("bash", "-c", f"PYTHONPATH=. python {tmp_path}/spy.py {closed}", check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: ")
    assert line in said


def test_a_label_cannot_command_the_terminal():
    out = io.StringIO()
    predict.show([("a", "good\x1b[2J\nbad\t", 0.5)], out)
    assert out.getvalue() == "good\\x1b[2J bad\t0.500000\n"


def test_a_mistake_is_said_before_torch_is_imported(here):
    code = "import sys, commands.predict; assert 'torch' not in sys.modules"
    here.run("python", "-c", code)
    done = here.run("python", "-m", "commands.predict", "--model", "x", "y", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --model x: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("$'caf\\xe9'", "error: 'caf\\udce9': not UTF-8; --file reads texts from a file"),
        (
            "--output in.csv < in.csv",
            "error: --output in.csv: it is also the input (standard input), which would be "
            "overwritten",
        ),
    ],
)
def test_what_the_shell_hands_over_is_looked_at(here, tmp_path, command, line):
    (tmp_path / "in.csv").write_text("text,other\na,b\n")
    model = here.path / "data/models/svm"
    code = f"cd {tmp_path}; PYTHONPATH={here.path} python -m commands.predict --model {model}"
    done = here.run("bash", "-c", f"{code} {command}", check=False)
    assert done.returncode == 1
    assert done.stderr == f"{line}\n"
    assert (tmp_path / "in.csv").read_text() == "text,other\na,b\n"


def test_an_output_that_is_a_link_stays_one(run, tmp_path):
    (tmp_path / "link.csv").symlink_to("real.csv")
    run("--model", "svm", GOOD, "--output", str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert GOOD in (tmp_path / "real.csv").read_text()


def test_a_terminal_that_lacks_a_character_gets_another(here, monkeypatch, tmp_path):
    model = shutil.copytree(here.path / "data/models/svm", tmp_path / "svm")
    config = model / "config.json"
    config.write_text(config.read_text().replace("positive", "posé").replace("negative", "négé"))
    monkeypatch.setattr(sys, "argv", ["predict", "--model", str(model), GOOD])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    ending.quietly(predict.main)
    assert b"\\xe9\t" in sys.stdout.buffer.getvalue()
