"""What the tests share: a miniature DistilBERT, a few reviews, a project to run stages in."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
# The project without what it produces.
SOURCES = (
    "stages",
    "commands",
    "dvc.yaml",
    "params.yaml",
    "libraries.yaml",
    ".dvc",
    ".dvcignore",
    ".gitignore",
    "local",
)

OPINIONS = {0: ["dull", "tedious"], 1: ["great", "witty"]}
WORDS = ["a", "the", "it", "is", "not", "very", "film", *OPINIONS[0], *OPINIONS[1]]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """No test reaches a hub that it did not start, nor is run as a DVC stage."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("DVC_STAGE", raising=False)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Path:
    """A directory with a DistilBERT of two layers, random weights and a tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("miniature")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(vocabulary), dim=32, hidden_dim=64, n_heads=4, n_layers=2,
        max_position_embeddings=64,
    )  # fmt: skip
    DistilBertModel(config).save_pretrained(directory)
    return directory


def dataset(**changes: Any):
    """The section `dataset` of params.yaml with some changes."""
    from stages.lib.core import declarations
    from stages.lib.schema import params

    section = declarations.read_yaml(str(ROOT / "params.yaml"))["dataset"]
    return params.Dataset(**section | {"path": "nowhere"} | changes)


def write_reviews(directory: Path, size: int = 24) -> Path:
    """Three splits whose label is said by two words of each review."""
    import numpy as np

    random = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for offset, split in enumerate(("train", "validation", "test")):
        rows = ["text,label"]
        for row in range(size):
            label = row % 2
            opinion = random.choice(OPINIONS[label], 2)
            words = [*random.choice(WORDS[:7], 3 + (row + offset) % 6), *opinion]
            rows.append(f"{' '.join(random.permutation(words))},{label}")
        (directory / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return directory


class Project:
    """A copy of the pipeline in a directory of its own, to run stages and DVC in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.local")
                shutil.copytree(source, path / name, ignore=ignored)
            else:
                shutil.copy(source, path / name)
        (path / "metrics").mkdir()
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "start")

    def copy(self, path: Path) -> "Project":
        """The project as it is, in another directory."""
        other = object.__new__(Project)
        other.path = shutil.copytree(self.path, path, symlinks=True)
        return other

    def read(self, path: str) -> Any:
        """The content of a JSON or YAML file."""
        return YAML(typ="safe").load((self.path / path).read_text())

    def git(self, *args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return self.run("git", *identity, *args).stdout

    def run(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        """Run a command there, with the interpreter of the tests first on the path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.path,
            env=os.environ | {"PATH": path} | env,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def dvc(self, *args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        return self.run("dvc", *args, check=check, **env)

    def set(self, **changes) -> None:
        """Change params.yaml: `lora__lr=1` is lora.lr; dashes are underscores."""
        yaml = YAML()
        path = self.path / "params.yaml"
        content = yaml.load(path.read_text())
        for name, value in changes.items():
            *sections, key = name.split("__")
            place = content
            for section in sections:
                place = place[section.replace("_", "-")]
            place[key] = value
        with path.open("w") as file:
            yaml.dump(content, file)


def run_here(monkeypatch: pytest.MonkeyPatch, *stages: str) -> None:
    """Run stages in this process and working directory, without the seconds that a start takes."""
    for name in stages:
        script = "lora" if name.startswith("lora") else name.replace("-", "_")
        module = importlib.import_module(f"stages.{script}")
        if script == "download":
            module.remote.cache_clear()
        monkeypatch.setattr(sys, "argv", [script, name])
        module.main()


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def ran(miniature, tmp_path_factory) -> Project:
    """A project on the miniature backbone and a few local reviews, after `dvc repro`: to look at,
    not to change."""
    directory = tmp_path_factory.mktemp("ran")
    project = Project(directory / "project")
    use_small_data(project, write_reviews(directory / "reviews"), miniature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        project.dvc("repro")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "ran")
    return project


def use_small_data(project: Project, reviews: Path, backbone: Path) -> None:
    """Local reviews and backbone, two epochs of everything."""
    trained = ("finetune_head", "finetune_full", "lora_2e_5", "lora_2e_4", "lora")
    project.set(
        dataset__path=str(reviews),
        backbone__path=str(backbone),
        tokenize__max_length=32,
        **{f"{name}__epochs": 2 for name in trained},
        **{f"{name}__batch_size": 8 for name in trained},
    )
    project.git("commit", "--quiet", "--all", "--message", "small data")


@pytest.fixture
def after(ran, tmp_path) -> Project:
    """A copy of `ran` of one's own, to go on from."""
    return ran.copy(tmp_path / "after")


@pytest.fixture(scope="session")
def _workspace(tmp_path_factory) -> Path:
    import workspace

    directory = tmp_path_factory.mktemp("workspace") / "made"
    workspace.make(directory)
    return directory


@pytest.fixture
def written(_workspace, tmp_path, monkeypatch) -> Path:
    """A workspace of one's own whose one small stage has run; it is the working directory."""
    directory = shutil.copytree(_workspace, tmp_path / "workspace", symlinks=True)
    monkeypatch.chdir(directory)
    return directory
