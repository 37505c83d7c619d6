"""Write a model card for every model.

    python -m stages.cards

Cards are rendered apart from the training, so that a change of their wording trains nothing.

reads    metrics/, metrics/costs, the manifests of data/tokenized and data/backbone, data/models/svm
         (params: seed and the section of each model)
writes   data/cards/<model>.md: the README.md of the model's directory on the Hub
"""

import json
from typing import Any

from stages.lib.core import manifest, outputs, stage
from stages.lib.core.paths import BACKBONE, CARDS, COSTS, METRICS, MODELS, TOKENIZED
from stages.lib.models import registry
from stages.lib.schema import params


def main() -> None:
    names = registry.names()
    p = params.load("seed", *names)
    from stages.lib.models import card

    data, backbone = manifest.read(TOKENIZED), manifest.read(BACKBONE)
    with outputs.replacing_directory(CARDS) as directory:
        for name in names:
            section = getattr(p, name.replace("-", "_")).model_dump()
            text = card.render(
                name,
                registry.kind(MODELS / name),
                data=data,
                backbone=backbone,
                scores=_read(METRICS / f"{name}.json"),
                settings=section | _found(name) | {"seed": p.seed} | _measured(name),
            )
            (directory / f"{name}.md").write_text(text, encoding="utf-8")


def _found(name: str) -> dict[str, Any]:
    """The value of C that the SVM's stage chose among those of params.yaml."""
    if name != "svm":
        return {}
    return {"C": _read(MODELS / name / "config.json")["C"]}


def _measured(name: str) -> dict[str, Any]:
    costs = _read(COSTS / f"{name}.json")
    return {key: costs[key] for key in ("precision", "trainable_parameters")}


def _read(path: Any) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    stage.run(main)
