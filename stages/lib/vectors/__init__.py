"""Own the [CLS] vectors on disk, and the linear SVM on them, in memory or out of it.

It imports core.
"""
