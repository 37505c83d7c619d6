"""The schema of params.yaml, and the function with which a stage reads its sections.

This package imports core. No stage lists it as a dependency in dvc.yaml, because DVC tracks the
parameter values themselves.
"""
