"""results.json, the run folder, W&B, the terminal's summary, figures, tables."""
