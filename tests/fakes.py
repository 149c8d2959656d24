"""A small attribution with the real table layout, made without any model."""

import torch

from cad_exp.attribution.attribute import Attribution
from cad_exp.interventions.spaces import GRANULARITIES, Site, make_granularity

BLOCKS = (
    "down_blocks.0.attentions.0",
    "down_blocks.1.attentions.0",
    "mid_block.attentions.0",
    "up_blocks.1.attentions.0",
    "up_blocks.1.attentions.1",
    "up_blocks.2.attentions.0",
)


def fake_sites(width: int = 16, heads: int = 4) -> list[Site]:
    """Three output projections for each of six transformers: self-attention, cross-attention, feed-forward."""
    sites = []
    for block in BLOCKS:
        inner = f"{block}.transformer_blocks.0"
        sites += [
            Site(f"{inner}.attn1.to_out.0", block, "self-attention", (width, width), heads),
            Site(f"{inner}.attn2.to_out.0", block, "cross-attention", (width, width), heads),
            Site(f"{inner}.ff.net.2", block, "feed-forward", (width, 4 * width), 0),
        ]
    return sites


def fake_attribution(seed: int = 0, width: int = 16) -> Attribution:
    """Heavy-tailed scores, positive on average in up_blocks.1's cross-attention and feed-forward."""
    generator, sites, scores = torch.Generator().manual_seed(seed), fake_sites(width), {}
    for number, site in enumerate(sites):
        strength = (
            4.0 if site.block.startswith("up_blocks.1") and site.kind != "self-attention" else 1.0 / (1 + number % 5)
        )
        noise = torch.randn(site.shape, generator=generator)
        scores[site.module] = 1e-4 * strength * (noise * noise.abs() + 0.15 * strength)
    spaces = {name: make_granularity(name).on(sites) for name in GRANULARITIES}
    return Attribution({name: space.join(scores) for name, space in spaces.items()}, spaces)
