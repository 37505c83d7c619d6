"""The ranges of parameters in tuning.yaml, as Optuna's distributions."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.core import declarations
from stages.lib.core.errors import InputError
from stages.lib.schema import params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PATH = "tuning.yaml"

Values = dict[str, Any]
Space = Mapping[str, "BaseDistribution"]
Number = int | float


class Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Bounds(Model):
    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None


class Choices(Model):
    choices: Annotated[list[bool | int | float | str], Field(min_length=2)]


def read(model: str, models: tuple[str, ...]) -> dict[str, "BaseDistribution"]:
    """Read the ranges of a model's parameters, in the order of tuning.yaml.

    Raises InputError for the first mistake in any section.
    """
    content = declarations.read_yaml(PATH)
    if not isinstance(content, dict):
        raise InputError(f"{PATH}: expected sections such as 'svm', got {params.shown(content)}")
    current = declarations.read_yaml(params.PATH)
    params.parse(current)
    found: dict[str, dict[str, BaseDistribution]] = {}
    for name, section in content.items():
        if name not in models:
            raise InputError(
                f"{PATH}: {name}: no such model; {params.suggestion(str(name), models)}"
            )
        if not isinstance(section, dict) or not section:
            raise InputError(f"{PATH}: {name}: expected parameters with their ranges")
        found[name] = {
            parameter: _distribution(f"{name}.{parameter}", entry, current)
            for parameter, entry in section.items()
        }
    if model not in found:
        raise InputError(
            f"{PATH}: {model}: no ranges; add a section with that name (there are: "
            f"{', '.join(found)})"
        )
    return found[model]


def _distribution(name: str, entry: Any, current: Values) -> "BaseDistribution":
    from optuna import distributions

    where = f"{PATH}: {name}"
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: {params.shown(entry)} is wrong: it should be a range such as "
            "{low: 1, high: 3} or {choices: [1, 2, 3]}"
        )
    kind: type[Bounds | Choices] = Choices if "choices" in entry else Bounds
    try:
        range_ = kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "missing":
            raise InputError(f"{where}.{key}: missing") from None
        if first["type"] == "extra_forbidden":
            known = tuple(kind.model_fields)
            raise InputError(f"{where}.{key}: unknown; {params.suggestion(key, known)}") from None
        message = re.sub("^(Input|List) ", "", first["msg"])
        value = params.shown(first["input"])
        raise InputError(f"{where}.{key}: {value} is wrong: it {message}") from None
    if isinstance(range_, Choices):
        for choice in range_.choices:
            _check_value(name, choice, current)
        return distributions.CategoricalDistribution(range_.choices)
    low, high, log, step = range_.low, range_.high, range_.log, range_.step
    if low > high:
        raise InputError(f"{where}: low is {low}, which is more than high, {high}")
    if log and step:
        raise InputError(f"{where}: log and step exclude each other")
    if log and low <= 0:
        raise InputError(f"{where}: low is {low}, but with log it should be greater than 0")
    if step and abs((high - low) / step - round((high - low) / step)) > 1e-8:
        raise InputError(f"{where}: no whole number of steps of {step} leads from {low} to {high}")
    _check_value(name, low, current)
    _check_value(name, high, current)
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        return distributions.IntDistribution(low, high, log=log, step=step or 1)
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _check_value(name: str, value: Any, current: Values) -> None:
    """Raise InputError if params.yaml may not have this value."""
    section, _, parameter = name.partition(".")
    changed = current | {section: current[section] | {parameter: value}}
    try:
        params.parse(changed)
    except InputError as error:
        raise InputError(str(error).replace(params.PATH, PATH, 1)) from None


def rounded(value: Any, range_: "BaseDistribution") -> Any:
    """Round a float to the digits that matter, so that a user can copy it."""
    from optuna.distributions import FloatDistribution

    if not isinstance(range_, FloatDistribution):
        return value
    rounded = float(f"{value:.10g}" if range_.step else f"{value:.3g}")
    return min(max(rounded, range_.low), range_.high)


def fits(values: Values, ranges: Space) -> bool:
    """Return whether Optuna can learn from these values; it cannot from a list, as for svm.C."""
    from optuna.trial import create_trial

    try:
        create_trial(params=values, distributions=dict(ranges), value=0.0)
    except (TypeError, ValueError):
        return False
    return True
