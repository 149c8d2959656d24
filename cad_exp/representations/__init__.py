"""What a model knows, and where: activations at its hookpoints, probes that read them, and sparse features."""
