"""Component spaces, ablations, edits, erasure methods."""
