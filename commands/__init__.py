"""Commands that users run alongside the pipeline, and what these commands share."""
