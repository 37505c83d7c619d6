"""From texts to hidden states: tokenizer, batches, inference, device, precision and processes.

This package imports core.
"""
