"""The schema of params.yaml, and the function with which a stage reads its sections.

Every stage validates the whole file, so that any mistake stops the run before slow work starts. A
stage receives only the sections that it requests.
"""

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, cast

import safetensors
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.core.paths import BACKBONE

PATH = "params.yaml"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
# No more than an index of PyTorch holds.
Count = Annotated[int, Field(gt=0, lt=2**31)]
Name = Annotated[str, Field(min_length=1)]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _check_command(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    raise PydanticCustomError("command", "should be a command such as 'python'")


def _check_targets(value: Any) -> Any:
    if value == "auto" or (value and isinstance(value, list) and all(map(_is_name, value))):
        return value
    raise PydanticCustomError("targets", "should be 'auto' or a list of layers' names")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Dataset(Section):
    path: Name
    text_column: Name
    label_column: Name
    split_seed: Annotated[int, Field(ge=0)]
    hub: Name
    config: Name | None
    subset: Annotated[int, Field(ge=2)] | None
    train: Annotated[int, Field(ge=2)] | None


class Backbone(Section):
    path: Name
    hub: Name


class Tokenize(Section):
    max_length: Annotated[int, Field(ge=3)]


class Extract(Section):
    tokens_per_batch: Count


class Svm(Section):
    C: Annotated[list[Positive], Field(min_length=1), BeforeValidator(_as_list)]


class Training(Section):
    """The parameters of every stage that trains with the Trainer."""

    lr: Positive
    epochs: Count
    batch_size: Count
    weight_decay: NotNegative
    warmup: Share


class Lora(Training):
    r: Count
    alpha: Positive
    dropout: Share
    targets: Annotated[Literal["auto"] | list[str], BeforeValidator(_check_targets)]


class LoraVariant(Lora):
    variant: Literal["lora", "dora", "rslora", "pissa"]


class Report(Section):
    """The rule with which the report recommends a model."""

    margin: Share
    share: Annotated[float, Field(gt=0.5, lt=1)]


class Params(BaseModel):
    """The content of params.yaml. Each section has the name of its stage or model."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=_dashed, validate_by_name=False
    )

    source: Literal["auto", "hub", "pypi"]
    launch: Annotated[str, BeforeValidator(_check_command)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    min_steps: Annotated[Count, Field(alias="min_steps")]
    dataset: Dataset
    backbone: Backbone
    tokenize: Tokenize
    extract_cls_features: Extract
    svm: Svm
    finetune_head: Training
    finetune_full: Training
    lora_2e_5: Lora
    lora_2e_4: Lora
    lora: LoraVariant
    report: Report


def load(*sections: str) -> Params:
    """Return only the named sections of params.yaml, as attributes (dashes become underscores).

    Raises InputError for any mistake in params.yaml, and for a section that dvc.yaml does not
    declare for the running stage.
    """
    params = parse(declarations.read_yaml(PATH))
    declarations.check_declared(sections)
    # The stage that reads this section replaces the backbone and checks the targets afterwards.
    if "backbone" not in sections and (BACKBONE / "model.safetensors").is_file():
        _check_layers(params, BACKBONE)
    names = [name.replace("-", "_") for name in sections]
    return cast(Params, SimpleNamespace(**{name: getattr(params, name) for name in names}))


def check_targets(backbone: Path) -> None:
    """Raise InputError when a section of params.yaml targets a layer that `backbone` lacks.

    `load` does the same in every stage but the one that fetches the backbone, so that a misspelled
    name stops the run before slow work starts.
    """
    _check_layers(parse(declarations.read_yaml(PATH)), backbone)


def _check_layers(params: Params, backbone: Path) -> None:
    path = backbone / "model.safetensors"
    try:
        with safetensors.safe_open(path, "numpy") as weights:
            layers = {
                name.removesuffix(".weight").rpartition(".")[2]
                for name in weights.keys()  # noqa: SIM118
                if name.endswith(".weight")
                and "embeddings" not in name
                and len(weights.get_slice(name).get_shape()) == 2
            }
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not whole safetensors: {error}") from None
    for name, section in params:
        if isinstance(section, Lora) and section.targets != "auto":
            for target in section.targets:
                if target not in layers:
                    raise InputError(
                        f"{PATH}: {_dashed(name)}.targets: the backbone has no {target!r}; it has "
                        f"{', '.join(sorted(layers))}"
                    )


def parse(content: Any) -> Params:
    """Validate the content of params.yaml. Raises InputError for the first mistake."""
    if not isinstance(content, dict):
        raise InputError(f"{PATH}: expected sections such as 'seed: 0', got {shown(content)}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{PATH}: {_describe(first, content)}") from None


def shown(value: Any) -> str:
    """Return the repr of a value, with the middle omitted if it is long."""
    return _SHORT.repr(value)


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the known name that an unknown one probably stands for, or all known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _describe(error: Mapping[str, Any], content: dict[str, Any]) -> str:
    path = error["loc"]
    name = ".".join(str(step) for step in path)
    if error["type"] == "missing":
        return f"{name}: missing"
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return f"{name}: unknown parameter; {suggestion(str(path[-1]), _known_names(path[:-1]))}"
    if error["type"] == "model_type":
        return f"{name}: {shown(error['input'])} is wrong: it should be a section with parameters"
    message = re.sub("^(Input|List|String) ", "", error["msg"])
    return f"{name}: {shown(error['input'])} is wrong: it {message}"


def _known_names(path: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Params
    for step in path:
        field = model.model_fields[str(step).replace("-", "_")]
        model = cast(type[BaseModel], field.annotation)
    return [field.alias or name for name, field in model.model_fields.items()]
