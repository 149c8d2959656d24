"""What a model knows, and where: activations at its hookpoints, probes that read them, and sparse features."""

NOISY_LATENT = "noisy_latent"  # the hookpoint that is the network's input
# Denoisers that turn queries and keys by their positions before they attend: their attention to text is not read.
UNREAD = ("FluxTransformer2DModel",)


def unread(model: str) -> str:
    """Return the sentence for a model whose attention to text cannot be read."""
    return (
        f"the attention to text of '{model}' cannot be read: take a model with a UNet (mini, sd14, sdxl), PixArt, or "
        "Stable Diffusion 3 (mini_dit, sd35_medium)"
    )
