"""The sources of reviews and backbone: the Hub, a Python package index, or local files.

Each source is a module with two functions: `reviews` returns the splits, the label names and the
provenance; `backbone` fills a directory with an encoder and returns its provenance.

This package imports core, schema and reviews.
"""
