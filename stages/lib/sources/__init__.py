"""Where reviews and backbone come from: the Hub, a Python package index, or local files.

Each source is a module with two functions: `reviews` gives the splits, the names of their labels
and where they came from, `backbone` fills a directory with an encoder and says where that came
from.

It imports core, schema and reviews.
"""
