"""Fine-tune the whole model: backbone and head.

    python -m stages.finetune_full

reads    data/tokenized, data/backbone (params: finetune-full, seed, precision,
         min_steps)
writes   data/models/finetune-full/, a complete model for pipeline("text-classification", ...)
         data/predictions/finetune-full.csv
         data/curves/finetune-full/: losses and validation accuracy by step
metrics  metrics/costs/finetune-full.json
"""

from stages.lib.core import stage
from stages.lib.schema import params


def main() -> None:
    p = params.load("finetune-full", "seed", "precision", "min_steps")
    from stages.lib.training import finetuning

    finetuning.run("finetune-full", p.finetune_full, p)


if __name__ == "__main__":
    stage.run(main)
