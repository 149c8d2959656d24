"""What a model knows, and where: activations at its hookpoints, probes that read them, and sparse features."""

NOISY_LATENT = "noisy_latent"  # the hookpoint that is the network's input
