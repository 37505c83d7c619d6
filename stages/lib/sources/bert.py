"""Converting a BERT encoder to a DistilBERT that computes the same hidden states.

DistilBERT has no token types and no pooler. With a single token type, the first row of
`token_type_embeddings` is a constant that can be added to every position embedding; the pooler
does not affect the hidden states. Everything else is renaming.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

_LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def convert_weights(bert: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert BertModel's state dict to DistilBertModel's, both float32."""
    weights = {
        f"embeddings.{name}": bert[f"embeddings.{name}"]
        for name in ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    }
    weights["embeddings.position_embeddings.weight"] = (
        bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0]
    )
    for name, tensor in bert.items():
        if name.startswith("encoder.layer."):
            _, _, layer, rest = name.split(".", 3)
            module, kind = rest.rsplit(".", 1)
            weights[f"transformer.layer.{layer}.{_LAYER_NAMES[module]}.{kind}"] = tensor
    return weights


def convert_config(bert: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of BERT's config.json to DistilBERT's."""
    return {
        "architectures": ["DistilBertModel"],
        "model_type": "distilbert",
        "activation": bert["hidden_act"],
        "attention_dropout": bert["attention_probs_dropout_prob"],
        "dim": bert["hidden_size"],
        "dropout": bert["hidden_dropout_prob"],
        "hidden_dim": bert["intermediate_size"],
        "initializer_range": bert["initializer_range"],
        "max_position_embeddings": bert["max_position_embeddings"],
        "n_heads": bert["num_attention_heads"],
        "n_layers": bert["num_hidden_layers"],
        "pad_token_id": bert["pad_token_id"],
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
        "vocab_size": bert["vocab_size"],
    }


def write_distilbert(
    directory: Path,
    *,
    config: dict[str, Any],
    weights: bytes,
    tokenizer: dict[str, Any],
    vocabulary: bytes,
) -> None:
    """Write config, weights and tokenizer under the file names that transformers expects.

    `config` and `weights` (a safetensors file) are BERT's. `tokenizer` is the content of a
    tokenizer.json; its fixed padding and truncation are removed, because the pipeline sets its own.
    """
    tensors = convert_weights(safetensors.numpy.load(weights))
    safetensors.numpy.save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    tokenizer_config = {
        "tokenizer_class": "DistilBertTokenizer",
        "do_lower_case": True,
        "model_max_length": config["max_position_embeddings"],
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    contents = {
        "config.json": convert_config(config),
        "tokenizer.json": tokenizer | {"padding": None, "truncation": None},
        "tokenizer_config.json": tokenizer_config,
    }
    for name, content in contents.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")
    (directory / "vocab.txt").write_bytes(vocabulary)
