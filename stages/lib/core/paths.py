"""The names of the splits and the paths of the stages' outputs."""

from pathlib import Path

SPLITS = ("train", "validation", "test")

RAW = Path("data/raw")
BACKBONE = Path("data/backbone")
TOKENIZED = Path("data/tokenized")
FEATURES = Path("data/features")
MODELS = Path("data/models")
PREDICTIONS = Path("data/predictions")
CURVES = Path("data/curves")
CARDS = Path("data/cards")
METRICS = Path("metrics")
COSTS = Path("metrics/costs")
