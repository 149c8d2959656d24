"""The judge's features of drawings of the whole world, by which an image outside of it is told (outliers.py)."""

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from cad_exp.mini import JUDGE, WORLD
from cad_exp.mini.judge_network import Judge
from cad_exp.mini.world import draw
from cad_exp.utils.hashing import file_digest

FIRST, NUMBER = 40_000_000, 1_500  # seeds that no split takes (data.SPLITS)


def run(out: str | Path = WORLD, count: int = NUMBER) -> None:
    """Run the stage `reference`: draw, look, and write, with the digest of the judge that looked."""
    features = Judge.load().predict(np.stack([draw(FIRST + i)[0] for i in range(count)]))["features"]
    save(features, out)


def save(features: np.ndarray, out: str | Path = WORLD) -> None:
    """Write features, with the digest of the judge that saw them."""
    Path(out).mkdir(parents=True, exist_ok=True)
    weights = file_digest(JUDGE / "model.safetensors")[:16]
    save_file({"features": features.astype(np.float16)}, str(Path(out) / "features.safetensors"), {"judge": weights})


def load(weights: str, folder: str | Path = WORLD) -> np.ndarray | None:
    """Return features (M, F) of the drawings as the judge with these weights sees them; None if another looked."""
    file = Path(folder) / "features.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, "np") as opened:
        known = opened.metadata()["judge"] == weights
        return opened.get_tensor("features").astype(np.float32) if known else None
