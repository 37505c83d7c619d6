"""Training curves, logged with DVCLive during training."""

import shutil
from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback

from stages.lib.core import outputs
from stages.lib.core.paths import CURVES

GROWING = Path("tmp/curves")

# The Trainer's names of the plotted values. Timings are omitted because they vary from run to run.
_NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
}


class Curves(TrainerCallback):
    """A callback that writes data/curves/<name>/plots/metrics/**.tsv, one row per logged step.

    During training, the files grow in tmp/curves/<name>; at the end, they are published all at
    once. A resumed run first writes the rows up to its checkpoint, which are in the Trainer's
    state.
    """

    def __init__(self, name: str) -> None:
        self._growing = GROWING / name
        self._final = CURVES / name

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._live = Live(str(self._growing), report=None, save_dvc_exp=False, dvcyaml=None)
        for entry in state.log_history:
            self._log(entry, entry["step"])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self._log(logs, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        with outputs.replacing(self._final) as aside:
            shutil.copytree(self._growing, aside)
        shutil.rmtree(self._growing)

    def _log(self, entry: dict[str, float], step: int) -> None:
        self._live.step = step
        for key, name in _NAMES.items():
            if key in entry:
                self._live.log_metric(name, float(entry[key]))
