"""Errors, files, hashes, console, progress, processes. Nothing here knows what cad_exp is about."""
