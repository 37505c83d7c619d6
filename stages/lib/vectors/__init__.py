"""The [CLS] vectors on disk, and the linear SVM on them, trained in memory or out of core.

This package imports core.
"""
