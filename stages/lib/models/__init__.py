"""The list of models, their cards, and loading a model to predict.

This package imports core, encoder and vectors.
"""

# The version of the project: of its cards, CITATION.cff and CHANGELOG.md. A test compares them.
VERSION = "1.0.0"
