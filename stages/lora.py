"""Train a LoRA adapter and the head on the frozen backbone.

    python -m stages.lora {lora-2e-5,lora-2e-4,lora}

The three models differ only in their sections of params.yaml.

reads    data/tokenized, data/backbone (params: the model's section, seed, precision,
         min_steps)
writes   data/models/<model>/: the adapter with its head, for
         AutoPeftModelForSequenceClassification
         data/predictions/<model>.csv
         data/curves/<model>/: losses and validation accuracy by step
metrics  metrics/costs/<model>.json
"""

import argparse
from typing import TYPE_CHECKING, Any

from stages.lib.core import stage
from stages.lib.schema import params

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

NAMES = ("lora-2e-5", "lora-2e-4", "lora")
# The target modules of each model type: the query and value projections. ModernBERT has a single
# layer for queries, keys and values.
AUTO = {
    "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "electra": ["query", "value"],
    "modernbert": ["Wqkv"],
}
# By `variant` in params.yaml, what LoraConfig calls it.
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},  # https://arxiv.org/abs/2402.09353
    "rslora": {"use_rslora": True},  # https://arxiv.org/abs/2312.03732
    "pissa": {"init_lora_weights": "pissa"},  # https://arxiv.org/abs/2404.02948
}


def adapt(model: "PreTrainedModel", settings: params.Lora) -> "PeftModel":
    """Add LoRA adapters (https://arxiv.org/abs/2106.09685), or a variant's, to layers of `model`.

    All parameters of the head are trained and saved together with the adapters.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    from stages.lib.training import classifier

    targets = AUTO[model.config.model_type] if settings.targets == "auto" else settings.targets
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
        lora_dropout=settings.dropout,
        target_modules=targets,
        modules_to_save=classifier.head(model),
        # The published pair has no variants.
        **VARIANTS[getattr(settings, "variant", "lora")],
    )
    return get_peft_model(model, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=NAMES)
    name = parser.parse_args().model
    p = params.load(name, "seed", "precision", "min_steps")
    settings = getattr(p, name.replace("-", "_"))
    from stages.lib.training import finetuning

    finetuning.run(name, settings, p, lambda model: adapt(model, settings))


if __name__ == "__main__":
    stage.run(main)
