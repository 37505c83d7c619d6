"""Fine-tune only the head, on the cached [CLS] vectors of the frozen backbone.

    python -m stages.finetune_head

With the backbone frozen and in eval mode, this is the same computation as training the whole model,
but without a forward pass through the backbone in every epoch.

reads    data/features, data/backbone (params: finetune-head, seed, min_steps)
writes   data/models/finetune-head/, a complete model for pipeline("text-classification", ...)
         data/predictions/finetune-head.csv
         data/curves/finetune-head/: losses and validation accuracy by step
metrics  metrics/costs/finetune-head.json
"""

from stages.lib.core import paths, stage
from stages.lib.core.paths import SPLITS
from stages.lib.schema import params

NAME = "finetune-head"


def main() -> None:
    p = params.load(NAME, "seed", "min_steps")
    import numpy as np
    from transformers import set_seed

    from stages.lib.core import manifest
    from stages.lib.encoder import processes
    from stages.lib.training import classifier, head, results, trainer
    from stages.lib.vectors import features

    splits = {split: head.Vectors(*features.load(split)) for split in SPLITS}
    data = manifest.read(paths.FEATURES)
    set_seed(p.seed)
    model = classifier.create(data["labels"])
    module = head.Head(model)
    passes = trainer.passes(data, len(splits["train"]), p.finetune_head, p.min_steps)
    seconds = trainer.train(
        NAME,
        module,
        rows=splits["train"],
        lengths=np.ones(len(splits["train"]), np.int64),
        logits=lambda: head.logits(module, splits["validation"]),
        labels=splits["validation"].labels,
        settings=p.finetune_head,
        passes=passes,
        seed=p.seed,
        float_format="fp32",
        inputs=[paths.FEATURES, paths.BACKBONE],
        collate=head.collate,
    )
    if not processes.leave_group():
        return
    results.write(
        NAME,
        model,
        data,
        logits={
            split: (splits[split].labels, head.logits(module, splits[split]))
            for split in ("validation", "test")
        },
        trained=module,
        reviews=len(splits["train"]),
        seconds=seconds,
        settings=p.finetune_head,
        passes=passes,
        seed=p.seed,
        float_format="fp32",
    )


if __name__ == "__main__":
    stage.run(main)
