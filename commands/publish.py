"""Publish a trained model on the Hugging Face Hub, with its card.

    python -m commands.publish lora alice/reviews-lora --dry-run
    python -m commands.publish lora alice/reviews-lora --private

The command uploads, in one commit, the model, its card as README.md, and training.json, the entry
of dvc.lock that says what the model was trained from. If the upload breaks off, run the same
command again. The token comes from `hf auth login` or HF_TOKEN, the address from HF_ENDPOINT. This
command is not a stage: run it from the project's root after `dvc repro` or `dvc pull`.
"""

import argparse
import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_token,
)
from huggingface_hub.constants import ENDPOINT, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from commands import ending, programs
from stages.lib.core import declarations, manifest, outputs
from stages.lib.core.errors import InputError
from stages.lib.core.paths import BACKBONE, CARDS, METRICS, MODELS
from stages.lib.models import card as cards
from stages.lib.models import registry
from stages.lib.report import seeds
from stages.lib.sources import hub

ADAPTER_CONFIG, TRAINING = "adapter_config.json", "training.json"
# The folder of the encoder, where a repository needs one of its own.
ENCODER = "encoder"
# Files that an earlier model of another kind may have left in the repository, and that would be
# taken for parts of this one. They are deleted, but only where this command wrote them.
LEFT_BEHIND = re.compile(
    r"((adapter_|tokenizer_)?config|tokenizer|about)\.json|(adapter_)?model\.safetensors|"
    rf"{ENCODER}/.*"
)
MERGED = (
    "A [LoRA](https://arxiv.org/abs/2106.09685) adapter with its classification head, merged into "
    "the frozen encoder that it was trained on."
)
TRAINED_FROM = (
    f"[{TRAINING}]({TRAINING}) has the hashes of the code and the data that it was trained with, "
    "and the versions of the libraries."
)
HOW_TO_USE = re.compile(r"(?<=\n## How to use\n\n).*?(?=\n## Training\n)", re.DOTALL)

# A part of the address where the client asks for access to the Hub's store of large files.
XET = "xet-write-token"

# Id and commit of a model on the Hub.
Base = tuple[str, str]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m commands.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help=", ".join(registry.names()))
    parser.add_argument("repository", metavar="USER/NAME", help="created if it does not exist")
    parser.add_argument("--private", action="store_true", help="only its owner sees it")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be uploaded, and how the card begins; no network is used",
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    check_repository(args.repository)
    check_model(args.model)
    if not args.dry_run:
        check_access()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(args.model, args.repository, folder)
        if args.dry_run:
            show(folder, args.repository, args.private)
        else:
            commit = upload(folder, args.model, args.repository, args.private)
            print(f"{args.model} is at {ENDPOINT}/{args.repository} (commit {commit[:12]})")


def check_repository(repository: str) -> None:
    """Raise InputError unless this is the full id of a repository."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository}: not a repository's id: {error}") from None
    if "/" not in repository:
        raise InputError(
            f"{repository}: not a repository's id: it lacks its owner, as in alice/{repository}"
        )


def check_model(name: str) -> None:
    """Raise InputError unless the model is that of dvc.lock, the encoder that it needs is the one
    that it was trained with, and the card is of the same training."""
    if name not in registry.names():
        known = ", ".join(registry.names())
        raise InputError(f"{name}: no such model; the models are {known}")
    lock = declarations.read_yaml("dvc.lock")["stages"]
    if name not in lock or not (MODELS / name).is_dir():
        raise InputError(
            f"{name}: {MODELS / name} is not here: 'dvc repro {name}' trains it, "
            f"'dvc pull {MODELS / name}' gets it from a remote"
        )
    with programs.repository() as repo:
        for path in (MODELS / name, *(() if is_whole(name) else (BACKBONE,))):
            (out,) = repo.find_outs_by_path(str(path))
            if out.workspace_status():
                raise InputError(
                    f"{name}: {path} is not as dvc.lock has it: 'dvc checkout {path}' or "
                    f"'dvc pull {path}' brings it back, 'dvc repro' makes it anew"
                )
    if not is_whole(name):
        trained = seeds.producers(lock)[str(MODELS / name)]
        if seeds.upstream(lock, trained) is None:
            raise InputError(
                f"{name}: it was trained from other data, or with another encoder, than dvc.lock "
                f"has now: 'dvc repro {name}' trains it anew"
            )
    read_card(name)


def is_whole(name: str) -> bool:
    """Return whether the model is complete without an encoder beside it."""
    return registry.kind(MODELS / name) == "classifier"


def read_card(name: str) -> ModelCard:
    """Read the model's card. Raises InputError unless it has the scores in metrics/<name>.json."""
    path, metrics = CARDS / f"{name}.md", METRICS / f"{name}.json"
    for needed in (path, metrics):
        if not needed.is_file():
            raise InputError(f"{name}: {needed} is not here: 'dvc repro cards {name}' writes it")
    card = ModelCard.load(path)
    scores: dict[str | None, dict[str, float]] = {}
    for result in card.data.eval_results or []:
        scores.setdefault(result.dataset_split, {})[result.metric_type] = result.metric_value
    written = json.loads(metrics.read_text(encoding="utf-8"))
    if any(
        not values.items() <= scores.get(split, {}).items() for split, values in written.items()
    ):
        raise InputError(
            f"{path}: its scores are not those in {metrics}: 'dvc repro cards {name}' writes both"
        )
    return card


def check_access() -> None:
    """Raise InputError if nothing can be uploaded from here."""
    if is_offline_mode():
        raise InputError("HF_HUB_OFFLINE is set: nothing can be published")
    if not get_token():
        raise InputError("no token: log in (hf auth login) or set HF_TOKEN")


def prepare(name: str, repository: str, folder: Path) -> None:
    """Fill `folder` with the files of the repository."""
    directory, kind = MODELS / name, registry.kind(MODELS / name)
    base = None if is_whole(name) else base_on_the_hub()
    card = read_card(name)
    if kind == "adapter" and not base:
        print(
            f"note: {name}: the Hub does not have its encoder in this form, so the adapter is "
            "published merged into the encoder, as a whole classifier",
            file=sys.stderr,
        )
        merge(directory, folder)
        kind = "classifier"
        card.text = card.text.replace(cards.WHAT["adapter"], MERGED)
        card.data["library_name"] = "transformers"
        card.data["tags"] = [tag for tag in card.data["tags"] if tag != "transformers"]
        if card.data.get("base_model_relation"):
            card.data["base_model_relation"] = "finetune"
    else:
        shutil.copytree(directory, folder, dirs_exist_ok=True)
    if kind == "adapter":
        assert base is not None
        name_base(folder / ADAPTER_CONFIG, *base)
    elif kind == "svm" and not base:
        shutil.copytree(BACKBONE, folder / ENCODER)
    used = usage(name, kind, repository, base)
    card.text, found = HOW_TO_USE.subn(lambda _: used, card.text)
    if not found:
        raise InputError(f"{CARDS / name}.md: no section 'How to use': 'dvc repro cards' writes it")
    card.text = card.text.replace("\n## Limits\n", f"\n{TRAINED_FROM}\n\n## Limits\n")
    card.save(folder / "README.md")
    lock = declarations.read_yaml("dvc.lock")["stages"]
    trained = seeds.producers(lock)[str(directory)]
    outputs.write_json(folder / TRAINING, {"stage": trained} | lock[trained])


def base_on_the_hub() -> Base | None:
    """Return the encoder's id and commit if the Hub has it in the form used here, or None."""
    about = manifest.read_provenance(BACKBONE)
    config = json.loads((BACKBONE / "config.json").read_text(encoding="utf-8"))
    # The download stage decides which tokens a ModernBERT classifier reads; the Hub's config may
    # say something else.
    if about["source"] != "hub" or "classifier_pooling" in config:
        return None
    return about["repository"], about["revision"]


def merge(directory: Path, folder: Path) -> None:
    """Write an adapter merged into its encoder, which makes a classifier, and the tokenizer."""
    import torch
    import transformers
    from peft import AutoPeftModelForSequenceClassification

    # transformers would warn that the encoder has no head, but the adapter brings one.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    labels = manifest.read(directory)["labels"]
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        directory,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        dtype=torch.float32,
        use_safetensors=True,
    )
    but_the_adapter = shutil.ignore_patterns("adapter_*")
    shutil.copytree(directory, folder, ignore=but_the_adapter, dirs_exist_ok=True)
    model.merge_and_unload(safe_merge=True).save_pretrained(folder)


def name_base(path: Path, repository: str, revision: str) -> None:
    """Name the encoder in an adapter's config as the Hub does."""
    config = json.loads(path.read_text(encoding="utf-8"))
    named = {"base_model_name_or_path": repository, "revision": revision}
    outputs.write_json(path, config | named)


def usage(name: str, kind: registry.Kind, repository: str, base: Base | None) -> str:
    """Return the card's section on usage, with the Hub's names instead of local paths."""
    described = "config.json" if kind == "svm" else manifest.FILE
    facts = json.loads((MODELS / name / described).read_text(encoding="utf-8"))
    code = cards.usage(kind, repository, facts["labels"], facts["max_length"])
    where = ""
    if kind == "adapter":
        where = f"\n{ADAPTER_CONFIG} names the encoder, which is fetched with it.\n"
    elif kind == "svm":
        inside = f'"{repository}", subfolder="{ENCODER}"'
        for old, new in (
            ("import torch\n", "import torch\nfrom huggingface_hub import hf_hub_download\n"),
            (
                f'"{repository}/model.safetensors"',
                f'hf_hub_download("{repository}", "model.safetensors")',
            ),
            (f'"{BACKBONE}"', '"{}", revision="{}"'.format(*base) if base else inside),
        ):
            code = code.replace(old, new)
        where = "" if base else f"\nThe encoder is in the folder `{ENCODER}`.\n"
    return f"```python\n{code}\n```\n{where}"


def show(folder: Path, repository: str, private: bool) -> None:
    """Print what would be uploaded, and the card up to its results."""
    files = _files(folder)
    sizes = [(folder / path).stat().st_size for path in files]
    print(f"{ENDPOINT}/{repository}{' (private)' if private else ''}")
    for path, size in zip([*files, "in all"], [*sizes, sum(sizes)], strict=True):
        print(f"{size:>15,} {path}")
    print("", (folder / "README.md").read_text(encoding="utf-8").partition("\n## ")[0], sep="\n")


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def upload(folder: Path, name: str, repository: str, private: bool) -> str:
    """Create the repository if it does not exist, commit all files of `folder`, and return the
    commit.

    The client sends large files before the commit, except those that the Hub already has. Raises
    InputError if the repository has files that would be taken for parts of the model and that this
    command did not write.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    files = _files(folder)
    with explaining_errors(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        there = api.model_info(repository)
        if private and not there.private:
            raise InputError(
                f"{repository}: it exists and is public: make it private in its settings, or "
                "leave out --private"
            )
        known = {file.rfilename for file in there.siblings or []}
        left = sorted(path for path in known - set(files) if LEFT_BEHIND.fullmatch(path))
        if left and TRAINING not in known:
            raise InputError(
                f"{repository}: it was not published from here, and {left[0]} would be deleted: "
                "choose another name, or delete that file yourself"
            )
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(path) for path in left),
                *(CommitOperationAdd(path, folder / path) for path in files),
            ],
            commit_message=f"Publish {name}",
            # Nothing is deleted that was not seen above.
            parent_commit=there.sha,
        )
    return commit.oid


@contextlib.contextmanager
def explaining_errors(repository: str) -> Iterator[None]:
    """Turn the client's errors into InputErrors, and leave a fault of the machine as it is."""
    try:
        yield
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise explained(repository, error) from None


def explained(repository: str, error: Exception) -> Exception:
    """Return the error to show the user: the Hub's answer if that is the cause."""
    causes = hub.causes(error)
    if any(isinstance(cause, httpx2.LocalProtocolError) for cause in causes):
        # Its message has the header that cannot be sent, and so the token.
        return InputError(f"{repository}: {hub.UNSENDABLE}")
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return refused(repository, cause)
    for cause in causes:
        if isinstance(cause, httpx2.TransportError | ConnectionError):
            hint = "; a Hub without Xet needs HF_HUB_DISABLE_XET=1" if XET in str(cause) else ""
            return InputError(
                f"{repository}: the connection to {ENDPOINT} broke off: {cause}{hint}; run the "
                "same command again to go on"
            )
    if isinstance(error, OSError) and error.errno:
        return error
    return InputError(f"{repository}: {ENDPOINT} does not answer as a Hub does: {error}")


def refused(repository: str, error: HfHubHTTPError) -> InputError:
    """Return the line for an answer that is an error, with what would help."""
    hint = {
        401: ": log in (hf auth login) or set HF_TOKEN to a token that is valid",
        403: ": the token needs write permission, and its user the right to use that name",
    }
    return InputError(f"{hub.refused(repository, error)}{hint.get(error.response.status_code, '')}")


if __name__ == "__main__":
    ending.run(main)
