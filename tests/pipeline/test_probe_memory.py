"""A probe map holds one hookpoint at one timestep in memory, however many lie on disk."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cad_exp.pipeline.stages.probes import _Map
from cad_exp.pipeline.stages.shards import Shards
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.probes.linear import LinearProbe

PLACES, PARTS, IMAGES, FEATURES, TIMES = 20, 3, 100, 1024, (1, 500)
MIB = 2**20


class Recorder(LinearProbe):
    """A probe that learns nothing and notes what its process holds."""

    def __init__(self):
        self.seen: list[tuple[float, tuple]] = []

    def fit(self, features, classes, split, *_):
        self.seen.append((held(), features.shape))
        return SimpleNamespace(predict=lambda rows: classes[split.test], validation=1.0, strength=0.0)


def held() -> float:
    """MiB of the process's own memory; pages of mapped files are the system's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def made(folder: Path, images: int = IMAGES) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The stage and runtime of a map, as far as it asks them, with files of activations of two draws."""
    names = [NOISY_LATENT, *(f"block.{number}" for number in range(PLACES - 1))]
    for part in range(PARTS):
        draw = torch.Generator().manual_seed(part)
        found = {name: torch.randn(images, len(TIMES), 2, FEATURES, generator=draw) for name in names}
        Shards.write(folder / f"{part}.safetensors", found)
    parts = tuple(
        SimpleNamespace(what="activations", timesteps=TIMES, file=folder / f"{n}.safetensors") for n in range(PARTS)
    )
    labels = {"object": np.arange(images) % 2}
    labelled = SimpleNamespace(images=np.zeros((images, 16, 16, 3), np.uint8), labels=labels)
    runtime = SimpleNamespace(
        all=lambda asked, what: [Shards.of(each.file) for each in asked], get=lambda part: labelled, device="cpu"
    )
    settings = {"seed": 0, "balanced": True, "imbalance": 1, "fused": None, "untrained": parts, "encoded": ()}
    probe = SimpleNamespace(settings={"name": "linear"})
    return SimpleNamespace(trained=parts, images=(None,) * PARTS, probe=probe, **settings), runtime


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_is_that_of_one_place_and_timestep(tmp_path: Path):
    """Twice 94 MiB are read from disk; a place at a timestep is 1.2 MiB, and nothing piles up."""
    stage, runtime = made(tmp_path)
    whole = sum(file.stat().st_size for file in tmp_path.iterdir()) / MIB
    one = PARTS * IMAGES * FEATURES * 4 / MIB
    recorder = Recorder()
    mapped = _Map(stage, runtime)
    mapped.probe = recorder
    before = held()
    table = mapped.table(lambda *_: None)
    own = [memory for memory, shape in recorder.seen if shape == (PARTS * IMAGES, FEATURES)]
    assert len(own) == len(TIMES) * (2 * PLACES - 1) and len(table) > len(own)
    assert max(own) - before < 10 * one < 0.25 * whole


def test_what_is_read_is_the_mean_over_draws_at_the_timestep(tmp_path: Path):
    stage, runtime = made(tmp_path, images=12)
    stored = [Shards.of(tmp_path / f"{part}.safetensors").tensor("block.3") for part in range(PARTS)]
    read = _Map(stage, runtime)._read(stage.trained, "block.3", 500)
    assert np.array_equal(read, torch.cat(stored)[:, 1].mean(1).numpy())
