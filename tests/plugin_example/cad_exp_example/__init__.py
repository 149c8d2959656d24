"""One of each thing that cad_exp can be extended by."""
