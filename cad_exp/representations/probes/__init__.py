"""Probes: light classifiers on frozen activations. What a probe reads there, the model knows there in a simple form."""
