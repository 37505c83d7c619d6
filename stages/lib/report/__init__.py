"""The report, as Markdown and as an HTML page.

This room imports core and labels.
"""
