"""Write a model card for every model.

    python -m stages.cards

Cards are a stage of their own, so that a change in their wording trains nothing.

reads    data/predictions, metrics/costs, data/models; data/tokenized and data/backbone, for where
         the data came from
writes   data/cards/<model>.md: the README.md of the model's repository on the Hub
"""

from stages.lib.core import manifest, metrics, outputs, stage
from stages.lib.core.costs import ModelCosts
from stages.lib.core.paths import BACKBONE, CARDS, COSTS, MODELS, TOKENIZED
from stages.lib.models import registry
from stages.lib.schema import params


def main() -> None:
    params.load()
    from stages.lib.core import predictions
    from stages.lib.models import card
    from stages.lib.scores import scoring

    data, backbone = manifest.read(TOKENIZED), manifest.read_provenance(BACKBONE)
    with outputs.replacing_directory(CARDS) as directory:
        for name in registry.names():
            costs = metrics.read(COSTS / f"{name}.json", ModelCosts)
            measured = {
                "precision": costs["precision"],
                "trainable_parameters": costs["trainable_parameters"],
            }
            text = card.render(
                name,
                registry.kind(MODELS / name),
                data=data,
                backbone=backbone,
                scores=scoring.of_predictions(predictions.read(name), data["labels"]),
                settings=costs["settings"] | measured,
            )
            (directory / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage.run(main)
