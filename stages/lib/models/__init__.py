"""Own the list of models, their cards, and what loads them to predict.

It imports core, encoder and vectors.
"""
