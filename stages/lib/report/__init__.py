"""The report, as Markdown and as an HTML page.

This package imports core, schema and labels.
"""
