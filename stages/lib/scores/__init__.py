"""The scores of a model, computed from its predictions.

This package imports core.
"""
