"""Own the way from texts to hidden states: tokenizer, batches, inference, device, precision and
processes.

It imports core.
"""
