"""The stages of a run, one file per artifact. Heavy libraries are imported where a stage is made."""
