"""Training a classifier with the Trainer: batches by length, curves, checkpoints to resume from,
and the best epoch by validation accuracy at the end.

Several processes share each batch of `batch_size` reviews and average their gradients, so the
batches, their order and the schedule are the same as with one process.
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
from stages.lib.core.manifest import Manifest
from stages.lib.encoder import batches, precision, processes
from stages.lib.schema.params import Training
from stages.lib.training import checkpoints
from stages.lib.training.curves import Curves
from stages.lib.training.parts import Batch

# The label of a review that the Trainer and PyTorch ignore in the loss.
IGNORED = -100


class BatchTrainer(Trainer):
    """A Trainer that trains on this process's share of each batch and evaluates with `score`.

    `split` divides a share into parts, for which gradients are computed in turn.
    """

    train_dataset: Dataset

    def __init__(
        self,
        *,
        share: batches.Share,
        split: Callable[[Batch], list[Batch]],
        score: Callable[[], dict[str, float]],
        **kwargs: Any,
    ) -> None:
        # The Trainer requires an evaluation dataset, although `evaluate` does not use it.
        super().__init__(compute_loss_func=_loss, eval_dataset=(), **kwargs)
        self._share, self._split, self._score = share, split, score

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._share,
            collate_fn=self._collate,
            pin_memory=self.args.dataloader_pin_memory,
            # Drawing from the global generator would change the dropout masks.
            generator=torch.Generator(),
        )
        # accelerator.prepare would divide this process's share again.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _collate(self, rows: list[Any]) -> Batch:
        batch = self.data_collator(rows or [self.train_dataset[0]])
        if not rows:
            # A process without rows in a small batch still has to take part in the step.
            batch["labels"].fill_(IGNORED)
        return batch

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add up the gradients of the parts of a batch, which processes exchange once."""
        step = super().training_step
        *first, last = self._split(inputs)
        with self.accelerator.no_sync(model):
            losses = [step(model, part, num_items_in_batch) for part in first]
        return sum(losses, step(model, last, num_items_in_batch))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in self._score().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Compute this process's part of the mean over the batch; the Trainer adds all parts."""
    total = cross_entropy(outputs["logits"], labels, ignore_index=IGNORED, reduction="sum")
    return total / num_items_in_batch


class StopOnDivergence(transformers.TrainerCallback):
    """A callback that stops the stage when the loss is not finite, before the model is scored."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for key in ("loss", "eval_loss"):
            if key in logs and not np.isfinite(logs[key]):
                raise InputError(
                    f"training diverged: the loss is {logs[key]} at step {state.global_step} "
                    f"with lr {args.learning_rate:g}; try a lower lr"
                )


class Progress(ProgressCallback):
    """A progress bar with the loss on a terminal, and one line per epoch everywhere."""

    training_bar: Any

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        super().on_evaluate(args, state, control)
        scores = ", ".join(f"{name} {metrics['eval_' + name]:.4f}" for name in ("accuracy", "loss"))
        line = f"epoch {state.epoch:g}/{args.num_train_epochs:g}: validation {scores}"
        self.training_bar.write(line, file=sys.stderr)


class Clock(transformers.TrainerCallback, ExportableState):
    """A clock for the seconds of training, including those before the resumed checkpoint."""

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


def passes(data: Manifest, rows: int, settings: Training, min_steps: int) -> int:
    """Return how often an epoch passes over the `rows` of `data`, so that all have `min_steps`.

    As many epochs of a small training set have too few steps to fit it (Zhang et al. 2021,
    "Revisiting Few-sample BERT Fine-tuning", https://arxiv.org/abs/2006.05987). A subset of the
    reviews, which is for trying the pipeline out, is passed over once.
    """
    if "subset" in data["reviews"]:
        return 1
    steps = math.ceil(rows / settings.batch_size) * settings.epochs
    return math.ceil(min_steps / steps)


def train(
    name: str,
    model: torch.nn.Module,
    *,
    rows: Dataset,
    lengths: np.ndarray,
    logits: Callable[[], np.ndarray],
    labels: np.ndarray,
    settings: Training,
    passes: int,
    seed: int,
    float_format: str,
    inputs: list[Path],
    collate: Callable[[list[Any]], Batch],
    split: Callable[[Batch], list[Batch]] = lambda batch: [batch],
) -> float:
    """Train `model` in place, keep the best epoch by validation accuracy, and return the seconds.

    `model` takes the batches that `collate` makes from `rows` and returns logits [rows, labels];
    `split` divides a batch into the parts that the memory should hold at a time, and `lengths` are
    the numbers of tokens of the rows. `logits` returns the logits of the validation reviews, and
    `labels` are their true labels. An epoch is `passes` passes over the rows. `float_format` is a
    result of `precision.resolve`.

    Training resumes from the last checkpoint of a killed run with the same code, settings, seed,
    device type, number of threads and processes, and `inputs` (files or directories). The caller
    must call `checkpoints.remove` after saving the model. The curves are written to
    data/curves/<name>. Raises InputError when the loss is not finite.
    """
    here = processes.state()
    device, count = precision.device(), here.num_processes
    machine = [device.type, torch.get_num_threads(), count]

    def prepare() -> tuple[Path, str | None]:
        directory = checkpoints.directory(
            name, inputs, [settings, passes, seed, float_format, *machine]
        )
        if checkpoint := checkpoints.last(directory, count):
            print(f"resuming from {checkpoint}", file=sys.stderr)
        return directory, checkpoint

    directory, checkpoint = processes.from_main(prepare)
    whole = batches.LengthGrouped(lengths, settings.batch_size, seed, passes)
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
        bf16=float_format == "bf16",
        fp16=float_format == "fp16",
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        # Ten points per epoch are enough for a curve.
        logging_steps=max(1, len(whole) // 10),
        logging_nan_inf_filter=False,
        report_to="none",
        # Progress, above, replaces the Trainer's own bar.
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        # Every trainable parameter is used in every step.
        ddp_find_unused_parameters=False,
    )
    # With several GPUs per process, the Trainer would fall back to DataParallel, without mixed
    # precision.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    # The precision in params.yaml overrides a configuration file of Accelerate.
    arguments.mixed_precision = "no" if float_format == "fp32" else float_format
    clock = Clock()
    shown = [Progress(), Curves(name)] if here.is_main_process else []
    trainer = BatchTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        share=batches.Share(whole, here.process_index, count),
        split=split,
        score=lambda: _scores(logits(), labels),
        data_collator=collate,
        callbacks=[StopOnDivergence(), clock, *shown],
    )
    trainer.remove_callback(PrinterCallback)
    if not here.is_main_process:
        # The Trainer has set the same seed everywhere, but dropout masks must differ by process.
        torch.manual_seed(int(np.random.SeedSequence([seed, here.process_index]).generate_state(1)))
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = clock.seconds
    # Accelerate has wrapped the forward pass in autocast, which a loaded model does not have.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return seconds


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute the accuracy and the mean loss over reviews."""
    loss = cross_entropy(torch.tensor(logits), torch.tensor(labels))
    return {"accuracy": float((logits.argmax(-1) == labels).mean()), "loss": loss.item()}
