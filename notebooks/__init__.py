"""Notebooks to read and to change. `python -m notebooks` runs them and keeps their pictures."""
