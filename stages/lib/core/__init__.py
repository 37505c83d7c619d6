"""Own what every stage stands on: errors, dvc.yaml's declarations, atomic outputs, the start and
end of a stage, manifests, costs and paths.

It imports no other room.
"""
