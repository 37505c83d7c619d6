"""Own the way from files of reviews to three validated splits, facts about them, and the texts to
classify.

It imports core.
"""
