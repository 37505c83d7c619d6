"""Labels that look wrong: out-of-sample probabilities, and the list of suspected labels.

This package imports core.
"""
