"""The frozen backbone as a function from token ids to [CLS] vectors, for the stage and for
distributed engines that run it over files on many machines."""

from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from stages.lib.core.errors import InputError
from stages.lib.core.paths import BACKBONE
from stages.lib.encoder import backbone, batches, first_token, inference, packed, precision


class Extractor:
    """The verified backbone in eval mode, on this process's device.

    Raises InputError for a precision that the device does not support, and wherever
    `backbone.load_verified` raises it.
    """

    def __init__(
        self,
        directory: str | Path = BACKBONE,
        asked: str = "auto",
        tokens_per_batch: int = inference.TOKENS_PER_BATCH,
    ) -> None:
        # What the device does not support is refused before the backbone is read.
        resolved = precision.resolve(asked)
        self._directory, self.tokens_per_batch = directory, tokens_per_batch
        self._model, self._pad_token_id, self.facts = backbone.load_verified(Path(directory))
        first_token.keep_first(self._model)
        self.cast(resolved)

    def cast(self, asked: str) -> None:
        """Round the backbone, which is in float32, to another precision, in place.

        Raises InputError for a precision that the device does not support.
        """
        self.precision = precision.resolve(asked)
        if self.precision == "bf16" and precision.device().type == "cpu":
            packed.pack(self._model)
            # PyTorch's kernel takes longer than products and a softmax, except for texts of
            # hundreds of tokens (bench/notes.md).
            self._model.set_attn_implementation("eager")
        # What transformers wraps `to` in hides its arguments' types.
        self._model.to(precision.device(), precision.DTYPES[self.precision])  # type: ignore[arg-type]

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the first token's last hidden states, [batch, dim], of a batch [batch, tokens].

        The inputs are int64, and on this process's device.
        """
        hidden: torch.Tensor = self._model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return hidden[:, 0]

    def __call__(self, rows: batches.Reviews, progress: tqdm | None = None) -> np.ndarray:
        """Compute the [CLS] vectors, float32 [reviews, dim].

        `rows` has the token ids of each review, integers [tokens]. Raises InputError when a vector
        is not finite.
        """
        cls = inference.run(
            self.states,
            rows,
            pad_token_id=self._pad_token_id,
            tokens_per_batch=self.tokens_per_batch,
            device=precision.device(),
            progress=tqdm(disable=True) if progress is None else progress,
            multiple=precision.multiple(self.precision),
        )
        if not np.isfinite(cls).all():
            advice = (
                f"its weights in {self._directory} may be damaged"
                if self.precision == "fp32"
                else "set 'precision: fp32' in params.yaml"
            )
            raise InputError(
                f"[CLS] vectors of the backbone are not finite in {self.precision}: {advice}"
            )
        return cls
