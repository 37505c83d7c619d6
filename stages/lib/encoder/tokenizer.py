"""The backbone's tokenizer, checked against its config."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from stages.lib.core.errors import InputError

# Types of models whose positions start after the padding id; all with "roberta" in their names do.
AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "mpnet",
    "xmod",
)


def check_present(directory: Path) -> None:
    """Raise InputError if there is no backbone; transformers would look for it on the Hub."""
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory}: no backbone in it; 'dvc repro' creates it")


def load(directory: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `directory`.

    Raises InputError when it has no padding token, when its padding token differs from that in the
    config, or when it does not start a text with the token whose hidden state represents the text:
    [CLS] or <s>.
    """
    check_present(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if tokenizer.pad_token_id is None:
        raise InputError(f"{directory}: the tokenizer has no padding token")
    config = AutoConfig.from_pretrained(directory)
    if tokenizer.pad_token_id != config.pad_token_id:
        raise InputError(
            f"{directory}: the tokenizer pads with {tokenizer.pad_token_id} "
            f"({tokenizer.pad_token}), but config.json says pad_token_id: {config.pad_token_id}"
        )
    starts = {tokenizer.cls_token_id, tokenizer.bos_token_id} - {None}
    if tokenizer("a")["input_ids"][0] not in starts:
        raise InputError(f"{directory}: the tokenizer does not start a text with [CLS] or <s>")
    return tokenizer


def longest(tokenizer: PreTrainedTokenizerBase, directory: Path) -> int:
    """Return the maximum number of tokens that the backbone in `directory` accepts."""
    return min(positions(AutoConfig.from_pretrained(directory)), tokenizer.model_max_length)


def positions(config: PreTrainedConfig) -> int:
    """Return the number of tokens for which a model has position embeddings."""
    count: int = config.max_position_embeddings
    after_padding = "roberta" in config.model_type or config.model_type in AFTER_PADDING
    return count - (config.pad_token_id + 1 if after_padding else 0)
