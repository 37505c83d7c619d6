"""Own the training of a classifier through the Trainer: curves, checkpoints, dropout, the best
epoch.

It imports core, schema, encoder and scores.
"""
