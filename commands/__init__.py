"""What users run beside the pipeline: predictions on their own texts, statistics over seeds."""
