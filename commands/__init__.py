"""Commands that users run alongside the pipeline: predict, seeds, restore, verify."""
