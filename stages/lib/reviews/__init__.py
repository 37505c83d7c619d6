"""Reading review files, making three validated splits, computing statistics about them, and
reading texts to classify.

This package imports core.
"""
