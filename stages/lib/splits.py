"""The names of the splits and of the labels, whose index is the label's number."""

SPLITS = ("train", "validation", "test")
LABELS = ("negative", "positive")
