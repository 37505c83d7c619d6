"""The foundation of every stage: errors, declarations in dvc.yaml, atomic outputs, the start and
end of a stage, manifests, predictions, costs and paths.

This package imports no other package of stages/lib.
"""
