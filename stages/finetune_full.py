"""Fine-tune the whole model: backbone and head.

    python -m stages.finetune_full

reads    data/tokenized, data/backbone (params: finetune-full, seed, precision)
writes   data/models/finetune-full/, which pipeline("text-classification", ...) loads as it is,
         and its card
         data/predictions/finetune-full.csv
         data/curves/finetune-full/: loss and validation scores by step
metrics  metrics/finetune-full.json, metrics/costs/finetune-full.json
"""

from stages.lib import params, stage


def main() -> None:
    p = params.load("finetune-full", "seed", "precision")
    from stages.lib import finetuning

    finetuning.run("finetune-full", p.finetune_full, p)


if __name__ == "__main__":
    stage.run(main)
