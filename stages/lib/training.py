"""Training a classifier through the Trainer: batches by length, curves, checkpoints to resume from,
and the best epoch by validation accuracy at the end."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from stages.lib import checkpoints, precision, scoring
from stages.lib.curves import Curves
from stages.lib.errors import InputError
from stages.lib.params import Training


@dataclass(frozen=True)
class Split:
    """What the Trainer sees of a split: the rows, and the batches that they come in."""

    rows: Dataset
    batches: Sampler[list[int]]


class BatchTrainer(Trainer):
    """A Trainer whose batches come from samplers of whole batches."""

    def __init__(self, *, train: Split, validation: Split, **kwargs: Any) -> None:
        super().__init__(train_dataset=train.rows, eval_dataset=validation.rows, **kwargs)
        self._train, self._validation = train, validation

    def get_train_dataloader(self) -> DataLoader:
        return self._loader(self._train)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        return self._loader(self._validation)

    def _loader(self, split: Split) -> DataLoader:
        # A generator of its own: drawing from the global one would shift dropout.
        loader = DataLoader(
            split.rows,
            batch_sampler=split.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),
        )
        return self.accelerator.prepare(loader)


class StopOnDivergence(transformers.TrainerCallback):
    """Ends the stage when the loss is no longer a number, before a broken model is scored."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for key in ("loss", "eval_loss"):
            if key in logs and not np.isfinite(logs[key]):
                raise InputError(
                    f"training diverged: the loss is {logs[key]} at step {state.global_step} "
                    f"with lr {args.learning_rate:g}; try a lower lr"
                )


class Progress(ProgressCallback):
    """A bar with the loss on a terminal, and everywhere one line an epoch."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        super().on_evaluate(args, state, control)
        scores = ", ".join(
            f"{name} {metrics['eval_' + name]:.4f}" for name in ("accuracy", "f1", "loss")
        )
        line = f"epoch {state.epoch:g}/{args.num_train_epochs:g}: validation {scores}"
        self.training_bar.write(line, file=sys.stderr)


class Clock(transformers.TrainerCallback, ExportableState):
    """Seconds of training, those before the checkpoint that it was resumed from included."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seconds": self.seconds}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._before = state.stateful_callbacks["Clock"]["attributes"]["seconds"]
        self._start = time.perf_counter()


def train(
    name: str,
    model: torch.nn.Module,
    *,
    train: Split,
    validation: Split,
    settings: Training,
    seed: int,
    chosen: str,
    inputs: list[Path],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
) -> float:
    """Train `model` in place, to its best epoch by validation accuracy; gives the seconds it took.

    `model` takes the batches of `collate` and gives a loss and logits [rows, labels]; `chosen` is a
    precision as `precision.resolve` gives it. Goes on from the last checkpoint of a killed run with
    the same code, settings, seed and `inputs` (files or directories); who saves the model calls
    `checkpoints.remove` afterwards. Writes the curves of data/curves/<name>. Raises InputError when
    the loss is no longer a number.
    """
    device = precision.device()
    directory = checkpoints.directory(
        name, inputs, [settings, seed, chosen, str(device), torch.get_num_threads()]
    )
    arguments = TrainingArguments(
        output_dir=str(directory),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        use_cpu=device.type == "cpu",
        bf16=chosen == "bf16",
        fp16=chosen == "fp16",
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        # Ten points an epoch: enough for a curve.
        logging_steps=max(1, len(train.batches) // 10),
        logging_nan_inf_filter=False,
        report_to="none",
        # Progress, above, instead of the Trainer's own bar.
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
    )
    # One GPU: with several the Trainer would fall back to DataParallel, without mixed precision.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    clock = Clock()
    trainer = BatchTrainer(
        model=model,
        args=arguments,
        train=train,
        validation=validation,
        data_collator=collate,
        compute_metrics=_evaluate,
        callbacks=[StopOnDivergence(), Progress(), Curves(name), clock],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = checkpoints.last(directory)
    if checkpoint:
        print(f"going on from {checkpoint}", file=sys.stderr)
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = clock.seconds
    # Accelerate has wrapped the forward pass into autocast; who loads the saved model has it bare.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return seconds


def _evaluate(evaluation: EvalPrediction) -> dict[str, float]:
    """Scores, and the mean loss over reviews: the Trainer's own is a mean over batches, which here
    differ in size."""
    logits, labels = evaluation.predictions, evaluation.label_ids
    loss = cross_entropy(torch.from_numpy(logits).float(), torch.from_numpy(labels))
    scores = scoring.scores(labels, logits.argmax(-1), classes=logits.shape[-1])
    return scores | {"loss": loss.item()}
