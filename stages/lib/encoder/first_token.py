"""Leaving out what the classifier never reads.

A DistilBERT's head reads the hidden state of the first token ([CLS]) alone. So its last layer needs
keys and values of every token but the query, the projection and the feed-forward network of the
first only: the same function and gradients with a seventh less to multiply (of 6 layers).
"""

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.distilbert.modeling_distilbert import (
    DistilBertSelfAttention,
    Transformer,
    TransformerBlock,
    eager_attention_forward,
)


class FirstTokenAttention(DistilBertSelfAttention):
    """Attention of the first token to all: [batch, tokens, dim] to [batch, 1, dim]."""

    # transformers annotates one tensor and gives these two.
    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

        attend = AttentionInterface().get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self,
            heads(self.q_lin(hidden_states[:, :1])),
            heads(self.k_lin(hidden_states)),
            heads(self.v_lin(hidden_states)),
            None if attention_mask is None else attention_mask[..., :1, :],
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_lin(output.flatten(2)), weights


class FirstTokenBlock(TransformerBlock):
    """A layer of which only the first token's state is wanted."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask, **kwargs)
        attended = self.sa_layer_norm(attended + hidden_states[:, :1])
        return self.output_layer_norm(self.ffn(attended) + attended)


def only(model: nn.Module) -> None:
    """Let DistilBERT's last hidden state in `model` be that of the first token, [batch, 1, dim].

    In place, and what is saved of the model stays the same; other architectures are left alone.
    """
    for module in model.modules():
        if isinstance(module, Transformer):
            module.layer[-1].__class__ = FirstTokenBlock
            module.layer[-1].attention.__class__ = FirstTokenAttention
