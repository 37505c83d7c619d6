"""Classify texts with a trained model.

    python -m commands.predict --model lora-2e-4 "a gorgeous, witty, seductive movie"
    python -m commands.predict --model svm --file reviews.csv --output predictions.csv
    python -m commands.predict --model data/models/finetune-full < reviews.txt

For each text, in order, this prints one line with the label and its probability, separated by a
tab. A file written by --output also contains the texts. This command is not a stage of the
pipeline: run it from the project's root after `dvc repro` or `dvc pull`.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from commands import ending
from stages.lib.core import outputs, stage
from stages.lib.core.errors import InputError
from stages.lib.core.paths import MODELS
from stages.lib.models import registry
from stages.lib.reviews import texts

if TYPE_CHECKING:
    from stages.lib.models.prediction import Model

COLUMNS = ("text", "label", "probability")

# A text, its label and the label's probability; both are None for an empty text.
Row = tuple[str, str | None, float | None]
Write = Callable[[list[Row]], None]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m commands.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    parser.add_argument(
        "--model",
        required=True,
        help=f"{', '.join(registry.names())}; or the directory of such a model, of any "
        "transformers classifier, or of a PEFT adapter",
    )
    parser.add_argument(
        "--file",
        help="a .txt file with one text per line, or a .csv, .tsv, .jsonl or .parquet file; '-' "
        "(or giving no texts) reads standard input: one text per line, or CSV with --text-column",
    )
    parser.add_argument(
        "--text-column", metavar="NAME", help="the column with the texts (default: text)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write a .csv or .jsonl with {', '.join(COLUMNS)} instead of printing",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="fp32",
        help="the precision to compute in; fp32 (the default) gives the reported probabilities; "
        "auto is fp16 on CUDA, bf16 on a CPU where it is faster, and otherwise fp32",
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    directory = find_model(args.model)
    check_output(args.output, args.file or ("" if args.texts else texts.STDIN))
    chunks = read(args.texts, args.file, args.text_column)
    first = next(chunks, None)
    if first is None:
        raise InputError(f"{args.file or 'standard input'}: no texts in it")
    # Open the output before the model is loaded, so that a file that cannot be written is reported
    # at once.
    with opened(args.output) as write:
        from stages.lib.encoder import precision
        from stages.lib.models import prediction

        model = prediction.load(directory, precision.resolve(args.precision, "--precision"))
        predict(model, itertools.chain([first], chunks), write)


def find_model(name: str) -> Path:
    """Find the directory of a model, given by its stage's name or by path.

    Raises InputError when there is no such model or directory.
    """
    names = registry.names()
    directory = MODELS / name if name in names else Path(name)
    if directory.is_dir():
        return directory
    if name in names:
        raise InputError(
            f"--model {name}: {directory} does not exist: 'dvc repro {name}' trains it, "
            f"'dvc pull {directory}' gets it from a remote"
        )
    known = ", ".join(names)
    raise InputError(f"--model {name}: no such model or directory; the models are {known}")


def check_output(path: Path | None, source: str) -> None:
    """Raise InputError if the predictions of the texts in `source` cannot be written there."""
    if path is None and sys.stdout is None:
        raise InputError("standard output is closed: --output names a file to write instead")
    if path and path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--output {path}: it should end in .csv or .jsonl")
    if path and path.is_dir():
        raise InputError(f"--output {path}: it is a directory")
    if path and path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"--output {path}: {path.parent} is not a directory")
    if path and source and path.exists() and _is_read(path, source):
        place = "standard input" if source == texts.STDIN else "--file"
        raise InputError(
            f"--output {path}: it is also the input ({place}), which would be overwritten"
        )


def _is_read(path: Path, source: str) -> bool:
    """Return whether the texts in `source` are read from the file at `path`."""
    if source != texts.STDIN:
        return Path(source).exists() and path.samefile(source)
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))
    except (AttributeError, OSError):
        # Standard input is closed, or is no file of the operating system.
        return False


def read(given: list[str], file: str | None, column: str | None) -> Iterator[list[str]]:
    """Read the texts in chunks. Raises InputError for what cannot be read."""
    if not given:
        if (file or texts.STDIN) == texts.STDIN and sys.stdin is None:
            raise InputError("standard input is closed: give texts, or --file")
        if file is None and sys.stdin.isatty():
            raise InputError("no texts: give texts, --file, or standard input (--file -)")
        return texts.chunks(file or texts.STDIN, column)
    if file or column:
        raise InputError(
            f"texts and {'--file' if file else '--text-column'}: give only one of them"
        )
    for text in given:
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            # The shell passed bytes that are not UTF-8.
            raise InputError(f"{text!a}: not UTF-8; --file reads texts from a file")
        if text.endswith(texts.SUFFIXES) and Path(text).is_file():
            raise InputError(f"{text} is a file: use --file {text}")
    return iter([given])


def predict(model: "Model", chunks: Iterator[list[str]], write: Write) -> None:
    """Classify the texts, and write each chunk as soon as it is done."""
    from tqdm.auto import tqdm

    empty = 0
    with tqdm(unit="review", unit_scale=True) as progress:
        for chunk in chunks:
            # Only texts that are not empty are classified; an empty text has no label.
            places = [place for place, text in enumerate(chunk) if text.strip()]
            empty += len(chunk) - len(places)
            rows: list[Row] = [(text, None, None) for text in chunk]
            if places:
                scores = model.probabilities([chunk[place] for place in places], progress)
                best = scores.argmax(-1)
                for place, number, score in zip(places, best, scores.max(-1), strict=True):
                    rows[place] = (chunk[place], model.labels[number], float(score))
            write(rows)
    if empty:
        print(f"warning: empty texts, which have no label: {empty}", file=sys.stderr)


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[Write]:
    """Yield a function that writes rows: to standard output, or to a file.

    The file appears only at the end, when it is complete.
    """
    if path is None:
        yield lambda rows: show(rows, sys.stdout)
        return
    write = {".csv": write_csv, ".jsonl": write_jsonl}[path.suffix]
    # A symbolic link is kept, and the file that it points to is written.
    with outputs.replacing(path.resolve()) as aside:
        try:
            file = aside.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise InputError(f"--output {path}: {str(error.strerror).lower()}") from None
        with file:
            if path.suffix == ".csv":
                _csv(file).writerow(COLUMNS)
            yield lambda rows: write(rows, file)


def show(rows: list[Row], file: TextIO) -> None:
    """Write one line per text, safe for a terminal: its label, a tab, and its probability."""
    for _, label, score in rows:
        name = stage.printable(label or "")
        file.write(f"{name}\t{'' if score is None else f'{score:.6f}'}\n")
    file.flush()


def write_csv(rows: list[Row], file: TextIO) -> None:
    """Write rows as CSV, with nine significant digits, which represent a float32 exactly."""
    _csv(file).writerows((text, label, _rounded(score)) for text, label, score in rows)


def _csv(file: TextIO) -> Any:
    # Without quotes, a carriage return in a text would end its row.
    return csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def write_jsonl(rows: list[Row], file: TextIO) -> None:
    """Write rows as JSON, one object per line, with the same digits as `write_csv`."""
    for text, label, score in rows:
        row = dict(zip(COLUMNS, (text, label, _rounded(score)), strict=True))
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rounded(score: float | None) -> float | None:
    return None if score is None else float(f"{score:.9g}")


if __name__ == "__main__":
    ending.run(main)
