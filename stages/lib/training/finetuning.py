"""Training on token ids, predicting and saving, shared by finetune-full and the LoRA models."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel, set_seed

from stages.lib.core import manifest
from stages.lib.core.paths import BACKBONE, SPLITS, TOKENIZED
from stages.lib.encoder import first_token, inference, precision, processes, tokens
from stages.lib.schema.params import Params, Training
from stages.lib.training import classifier, dropout, embeddings, narrow, parts, results, trainer

if TYPE_CHECKING:
    from peft import PeftModel


def run(
    name: str,
    settings: Training,
    common: Params,
    adapt: "Callable[[PreTrainedModel], PreTrainedModel | PeftModel]" = lambda model: model,
) -> None:
    """Train and save the model `name`, and write its predictions.

    `adapt` turns the classifier into the model to train, by default the classifier itself. `common`
    has the parameters seed, precision and min_steps. Raises InputError when the device does not
    support the precision and when training diverges.
    """
    float_format = precision.resolve(common.precision)
    splits = {split: tokens.load(split) for split in SPLITS}
    data = manifest.read(TOKENIZED)
    set_seed(common.seed)
    model = adapt(classifier.create(data["labels"]))
    first_token.keep_first(model)
    dropout.make_cheap(model)
    embeddings.keep_gradient(model)
    multiple = precision.multiple(float_format)

    def logits(split: str, multiple: int = 1) -> np.ndarray:
        return inference.logits(
            model, splits[split].input_ids, description=split, multiple=multiple
        )

    passes = trainer.passes(data, len(splits["train"]), settings, common.min_steps)
    with narrow.narrowed(model, float_format):
        seconds = trainer.train(
            name,
            model,
            rows=splits["train"],
            lengths=splits["train"].lengths,
            # Between epochs, the model computes in the precision of training.
            logits=lambda: logits("validation", multiple),
            labels=splits["validation"].labels,
            settings=settings,
            passes=passes,
            seed=common.seed,
            float_format=float_format,
            inputs=[TOKENIZED, BACKBONE],
            collate=tokens.Collator(
                model.config.pad_token_id, multiple, int(splits["train"].lengths.max())
            ),
            split=partial(parts.split, multiple=multiple),
        )
    # Predictions are computed in float32, as a user of the saved model would compute them.
    computed = {split: (splits[split].labels, logits(split)) for split in ("validation", "test")}
    if not processes.leave_group():
        return
    results.write(
        name,
        model,
        data,
        logits=computed,
        trained=model,
        reviews=len(splits["train"]),
        seconds=seconds,
        settings=settings,
        passes=passes,
        seed=common.seed,
        float_format=float_format,
    )
