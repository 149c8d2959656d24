"""A search for the edit that erases a concept most while it keeps the rest: `python -m cad_exp search --help`."""
