"""Training a classifier through the Trainer: batches by length, curves, checkpoints to resume from,
and the best epoch by validation accuracy at the end.

Several processes share each batch of `batch_size` reviews and average their gradients, so that the
batches, their order and the schedule are those of one process.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.data_loader import prepare_data_loader
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from stages.lib.core.errors import InputError
from stages.lib.encoder import batches, precision, processes
from stages.lib.schema.params import Training
from stages.lib.scores import scoring
from stages.lib.training import checkpoints
from stages.lib.training.curves import Curves

# The label of a review that counts for nothing, to the Trainer and to PyTorch.
IGNORED = -100


class BatchTrainer(Trainer):
    """A Trainer on this process's share of whole batches, which `score` evaluates."""

    train_dataset: Dataset

    def __init__(
        self, *, share: batches.Share, score: Callable[[], dict[str, float]], **kwargs: Any
    ) -> None:
        # A data set to evaluate on is not used, but the Trainer insists on one.
        super().__init__(compute_loss_func=_loss, eval_dataset=(), **kwargs)
        self._share, self._score = share, score

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._share,
            collate_fn=self._collate,
            pin_memory=self.args.dataloader_pin_memory,
            # Of its own: drawing from the global one would shift dropout.
            generator=torch.Generator(),
        )
        # Not accelerator.prepare, which would take a share of the share.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _collate(self, rows: list[Any]) -> dict[str, torch.Tensor]:
        batch = self.data_collator(rows or [self.train_dataset[0]])
        if not rows:
            # A process without a share of a small batch takes part in the step all the same.
            batch["labels"].fill_(IGNORED)
        return batch

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in self._score().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """The process's part of the mean over the batch; the Trainer adds the parts of all."""
    total = cross_entropy(outputs["logits"], labels, ignore_index=IGNORED, reduction="sum")
    return total / num_items_in_batch


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

    training_bar: Any

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
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
    rows: Dataset,
    lengths: np.ndarray,
    logits: Callable[[], np.ndarray],
    labels: np.ndarray,
    settings: Training,
    seed: int,
    chosen: str,
    inputs: list[Path],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
) -> float:
    """Train `model` in place, to its best epoch by validation accuracy; gives the seconds it took.

    `model` takes the batches that `collate` makes of `rows`, which have so many tokens (`lengths`),
    and gives logits [rows, labels]. `logits` gives those of the validation reviews, whose true
    labels are `labels`. `chosen` is a precision as `precision.resolve` gives it. Goes on from the
    last checkpoint of a killed run with the same code, settings, seed, number of processes and
    `inputs` (files or directories); who saves the model calls `checkpoints.remove` afterwards.
    Writes the curves of data/curves/<name>. Raises InputError when the loss is no longer a number.
    """
    here = processes.state()
    device, count = precision.device(), here.num_processes
    machine = [device.type, torch.get_num_threads(), count]

    def prepare() -> tuple[Path, str | None]:
        directory = checkpoints.directory(name, inputs, [settings, seed, chosen, *machine])
        if checkpoint := checkpoints.last(directory, count):
            print(f"going on from {checkpoint}", file=sys.stderr)
        return directory, checkpoint

    directory, checkpoint = processes.from_main(prepare)
    whole = batches.LengthGrouped(lengths, settings.batch_size, seed)
    arguments = TrainingArguments(
        output_dir=str(directory),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=math.ceil(settings.batch_size / count),
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
        logging_steps=max(1, len(whole) // 10),
        logging_nan_inf_filter=False,
        report_to="none",
        # Progress, above, instead of the Trainer's own bar.
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        # What is trained is used in every step.
        ddp_find_unused_parameters=False,
    )
    # One GPU a process: with several the Trainer would fall back to DataParallel, without mixed
    # precision.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    # As params.yaml has it, whatever a configuration of Accelerate says.
    arguments.mixed_precision = "no" if chosen == "fp32" else chosen
    clock = Clock()
    shown = [Progress(), Curves(name)] if here.is_main_process else []
    trainer = BatchTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        share=batches.Share(whole, here.process_index, count),
        score=lambda: _scores(logits(), labels),
        data_collator=collate,
        callbacks=[StopOnDivergence(), clock, *shown],
    )
    trainer.remove_callback(PrinterCallback)
    if not here.is_main_process:
        # Other dropout masks than those of the main process, whose seed the Trainer has set.
        torch.manual_seed(int(np.random.SeedSequence([seed, here.process_index]).generate_state(1)))
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = clock.seconds
    # Accelerate has wrapped the forward pass into autocast; who loads the saved model has it bare.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return seconds


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores, and the mean loss over reviews."""
    loss = cross_entropy(torch.tensor(logits), torch.tensor(labels))
    scores = scoring.scores(labels, logits.argmax(-1), classes=logits.shape[-1])
    return scores | {"loss": loss.item()}
