"""The scores and predictions, which every model writes in the same format.

This package imports core.
"""
