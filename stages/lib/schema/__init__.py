"""Own the schema of params.yaml and how a stage reads its sections.

It imports core. No stage depends on it in dvc.yaml, where DVC tracks the values themselves.
"""
