"""Skipping the hidden states that the classifier never reads.

The head of a DistilBERT reads only the hidden state of the first token ([CLS]). The last layer
therefore needs keys and values for all tokens, but the query, the output projection and the
feed-forward network only for the first. Outputs and gradients stay the same, with a seventh fewer
multiplications for 6 layers.
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
    """Attention from the first token to all tokens: [batch, tokens, dim] to [batch, 1, dim]."""

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
    """A layer that computes only the hidden state of the first token."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask, **kwargs)
        attended = self.sa_layer_norm(attended + hidden_states[:, :1])
        return self.output_layer_norm(self.ffn(attended) + attended)


def keep_first(model: nn.Module) -> None:
    """Keep only the first token of a DistilBERT's last hidden state in `model`: [batch, 1, dim].

    The model is changed in place, but its saved files stay the same. Other architectures are left
    unchanged.
    """
    for module in model.modules():
        if isinstance(module, Transformer):
            module.layer[-1].__class__ = FirstTokenBlock
            module.layer[-1].attention.__class__ = FirstTokenAttention
