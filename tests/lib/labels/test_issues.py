"""The list of suspected labels: what is written is read, whatever the texts and labels are."""

import csv

import numpy as np
import pytest
from experiment import HOSTILE

from stages.lib.core.errors import InputError
from stages.lib.labels import issues


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(texts, names=("bad", "good")):
    rows = np.arange(len(texts))
    labels = rows % len(names)
    probabilities = np.full((len(rows), len(names)), 0.25 / (len(names) - 1))
    probabilities[rows, (labels + 1) % len(names)] = 0.75
    issues.write(rows[::-1], texts[::-1], labels, probabilities, names)


def test_a_row_has_the_review_both_labels_and_the_confidence():
    write(["dull", "witty", "long"])
    assert issues.PATH.read_text() == (
        '"row","text","label","suggested_label","confidence"\n'
        '3,"long","bad","good",0.25\n'
        '2,"witty","good","bad",0.25\n'
        '1,"dull","bad","good",0.25\n'
    )


@pytest.mark.parametrize("names", [("bad", "good"), ("1", "NA", "null"), ('"', "a,b", "\r")])
def test_texts_and_labels_are_the_same_again(names):
    texts = [*HOSTILE, 'a "quote", a comma', "carriage\rreturn", "", "NA", "12", "=1+1"]
    write(texts, names)
    table = issues.read(100)
    assert table["text"].tolist() == texts[::-1]
    assert table["label"].tolist() == [names[row % len(names)] for row in range(len(texts))][::-1]
    with issues.PATH.open(newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv.DictReader(file)] == texts[::-1]


def test_the_first_rows_can_be_read_alone():
    write([f"review {row}" for row in range(30)])
    assert issues.read(10)["row"].tolist() == list(range(30, 20, -1))


def test_a_list_without_suspects_has_its_columns():
    issues.write(np.empty(0, np.int64), [], np.array([0, 1]), np.eye(2), ["bad", "good"])
    assert list(issues.read(10).columns) == list(issues._COLUMNS)
    assert len(issues.read(10)) == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [("", "No columns to parse from file"), ('"row","text"\n1,"a"\n', "no column 'label'")],
)
def test_a_file_that_is_no_list_is_one_line(text, line):
    write(["dull"])
    issues.PATH.write_text(text)
    with pytest.raises(InputError, match=f"^data/label-issues.csv: {line}; run the stage that"):
        issues.read(10)
