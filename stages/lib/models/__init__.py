"""The list of models, their cards, and loading a model to predict.

This room imports core, encoder and vectors.
"""
