"""References: each step as a user would write it, following the libraries' tutorials.

    python -m bench.theirs {tokenize,pipeline,pipeline-32,head,full,lora} < settings.json

Nothing from the stages is used here. The settings give the data, the backbone, the seed, the batch
size, the epochs, the learning rate, the weight decay and the warmup. One line of JSON with seconds,
samples and test accuracy goes to standard output. The time is that of the work itself, without
imports and loading.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    pipeline,
)


def load(settings: SimpleNamespace, **options: str) -> DatasetDict:
    files = {
        split: f"{settings.reviews}/{split}.parquet" for split in ("train", "validation", "test")
    }
    return DatasetDict(
        {split: Dataset.from_parquet(path, **options) for split, path in files.items()}
    )


def tokenize(settings: SimpleNamespace) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(settings.backbone)
    # Read from files and write to files, as the stage does.
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        dataset = load(settings, cache_dir=directory)
        for name, split in dataset.items():
            encoded = split.map(lambda row: tokenizer(row["text"], truncation=True, max_length=128))
            encoded.to_parquet(f"{directory}/{name}.parquet")
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "samples": sum(dataset.num_rows.values())}


def extract(settings: SimpleNamespace, batch_size: int | None = None) -> dict[str, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    dataset = load(settings)
    extractor = pipeline(
        "feature-extraction",
        model=settings.backbone,
        tokenizer=settings.backbone,
        tokenize_kwargs={"truncation": True, "max_length": 128},
    )
    options = {"batch_size": batch_size} if batch_size else {}
    start = time.perf_counter()
    cls = {
        name: np.array([states[0][0] for states in extractor(list(split["text"]), **options)])
        for name, split in dataset.items()
    }
    seconds = time.perf_counter() - start
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=0))
    svm.fit(cls["train"], dataset["train"]["label"])
    return {
        "seconds": seconds,
        "samples": sum(dataset.num_rows.values()),
        "accuracy": svm.score(cls["test"], dataset["test"]["label"]),
    }


def train(
    settings: SimpleNamespace,
    adapt: Callable[[PreTrainedModel], PreTrainedModel] = lambda model: model,
) -> dict[str, Any]:
    dataset = load(settings)
    tokenizer = AutoTokenizer.from_pretrained(settings.backbone)
    dataset = dataset.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True
    )
    torch.manual_seed(settings.seed)
    model = adapt(
        AutoModelForSequenceClassification.from_pretrained(settings.backbone, num_labels=2)
    )

    def accuracy(evaluation: EvalPrediction) -> dict[str, float]:
        return {
            "accuracy": float((evaluation.predictions.argmax(-1) == evaluation.label_ids).mean())
        }

    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=directory,
                learning_rate=settings.lr,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                per_device_eval_batch_size=settings.batch_size,
                weight_decay=settings.weight_decay,
                warmup_steps=settings.warmup,
                eval_strategy="epoch",
                save_strategy="epoch",
                report_to="none",
                seed=settings.seed,
            ),
            train_dataset=dataset["train"],
            eval_dataset=dataset["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        test = trainer.predict(dataset["test"]).metrics["test_accuracy"]
    return {
        "seconds": seconds,
        "samples": dataset["train"].num_rows * settings.epochs,
        "accuracy": test,
    }


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    return model


def add_lora(model: PreTrainedModel) -> PreTrainedModel:
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=8,
        lora_alpha=16,
        lora_dropout=0.1,
        target_modules=["q_lin", "v_lin"],
        modules_to_save=["pre_classifier", "classifier"],
    )
    return get_peft_model(model, config)


WAYS: dict[str, Callable[[SimpleNamespace], dict[str, Any]]] = {
    "tokenize": tokenize,
    "pipeline": extract,
    "pipeline-32": lambda settings: extract(settings, batch_size=32),
    "head": lambda settings: train(settings, freeze),
    "full": train,
    "lora": lambda settings: train(settings, add_lora),
}

if __name__ == "__main__":
    given = SimpleNamespace(**json.load(sys.stdin))
    print(json.dumps(WAYS[sys.argv[1]](given)))
