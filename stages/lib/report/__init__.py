"""Own the answer, as Markdown and as a page.

It imports core.
"""
