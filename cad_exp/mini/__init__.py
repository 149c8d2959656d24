"""The embedded laboratory: a small latent text-to-image diffusion model on a world that the project draws itself."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE, PIPELINE_DIT = WEIGHTS / "pipeline", WEIGHTS / "pipeline_dit"
CLIP, JUDGE, WORLD = WEIGHTS / "clip", WEIGHTS / "judge", WEIGHTS / "world"
