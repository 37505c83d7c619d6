"""Training a classifier with the Trainer: curves, checkpoints, dropout and the best epoch.

This package imports core, schema and encoder.
"""
