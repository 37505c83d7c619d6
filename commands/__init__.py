"""Commands that users run alongside the pipeline; each module says how."""
