"""A run: its stages, their cache and keys, the checks before it."""
