"""Own the scores and predictions, which every model writes in the same form.

It imports core.
"""
