import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from cad_exp.attribution.interactions.findings import pairs_of
from cad_exp.reporting.figures import interactions
from cad_exp.reporting.figures.attribution import attribution_map
from cad_exp.reporting.figures.before_after import before_after, enlarge
from cad_exp.reporting.figures.canvas import INK, luminance, on
from cad_exp.reporting.figures.layers import short_name, strip
from cad_exp.reporting.figures.probes import probe_map
from tests.fakes import fake_attribution


@pytest.mark.parametrize("granularity", ["weight", "neuron", "head", "layer"])
def test_attribution_map_of_every_granularity(granularity, tmp_path):
    path = attribution_map(fake_attribution(), granularity, tmp_path / "map.png", "Where church sits")
    picture = imread(path)
    assert picture.shape[1] > 1000 and picture.std() > 0.05
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]  # nothing temporary is left


def test_attribution_map_draws_the_same_picture_twice_and_another_for_other_scores(tmp_path):
    first, again, other = (
        attribution_map(fake_attribution(seed), "head", tmp_path / f"{i}.png").read_bytes()
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again != other


def test_attribution_map_with_nothing_but_zeros(tmp_path):
    attribution = fake_attribution()
    attribution.scores["head"].zero_()
    assert attribution_map(attribution, "head", tmp_path / "zeros.png").exists()


def test_strip_keeps_order_and_both_ends():
    scores = np.random.default_rng(0).normal(size=5000)
    cells = strip(scores)
    assert len(cells) == 200 and cells[0] == scores.max() and cells[-1] == scores.min() and (np.diff(cells) <= 0).all()
    assert strip(np.array([1.0, 3.0, -2.0])).tolist() == [3.0, 1.0, -2.0]


def test_names_of_layers():
    assert (
        short_name("up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2", "up_blocks.1.attentions.0")
        == "up 1, transformer 0"
    )
    assert (
        short_name("mid_block.attentions.0.transformer_blocks.3.x", "mid_block.attentions.0") == "mid, transformer 0.3"
    )
    assert short_name("transformer_blocks.4.attn1.to_out.0", "transformer_blocks.4") == "transformer blocks 4"


def test_before_after_places_every_picture(tmp_path):
    def flat(colour: int) -> np.ndarray:
        return np.full((2, 64, 64, 3), colour, np.uint8)

    images = {
        variant: {"a church": flat(colour), "a tench": flat(colour + 5)}
        for variant, colour in {"unedited": 40, "edited": 120, "random": 200}.items()
    }
    del images["random"]["a tench"]
    picture = (imread(before_after(images, tmp_path / "sheet.png"))[..., 0] * 255).round().astype(int)
    for colour in (40, 45, 120, 125, 200):
        assert (picture == colour).sum() > 5000, colour
    assert (picture == 205).sum() < 1000


def test_enlarge_repeats_pixels():
    picture = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    large = enlarge(picture)
    assert large.shape == (128, 128, 3) and (large[::2, ::2] == picture).all() and (large[1::2, 1::2] == picture).all()
    assert enlarge(large).shape == (128, 128, 3)


def test_pictures_stand_in_their_cells(tmp_path):
    """0.96 of 0.92 inches at 130 dpi are 115 pixels; the blocks begin at 1.55 inches and 0.92 + 0.22 later."""
    red, blue = (np.full((1, 8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    wide = np.full((1, 4, 8, 3), (0, 255, 0), np.uint8)
    path = before_after({"unedited": {"a": red, "b": wide}, "edited": {"a": blue}}, tmp_path / "grid.png")
    picture = imread(path)[..., :3]
    for colour, left, width, height in (
        ([1, 0, 0], 1.55, 115, 115),
        ([0, 0, 1], 2.69, 115, 115),
        ([0, 1, 0], 1.55, 115, 57),
    ):
        rows, columns = np.nonzero((picture == colour).all(-1))
        assert np.ptp(columns) + 1 == pytest.approx(width, abs=1) and np.ptp(rows) + 1 == pytest.approx(height, abs=1)
        assert columns.min() == pytest.approx(130 * left, abs=1)


def test_interactions_of_all_pairs_are_drawn(tmp_path):
    """Also of two components, and of those that have none."""
    for n in (2, 12):
        drawn = np.random.default_rng(0).normal(size=(n, n))
        table = pairs_of(drawn + drawn.T, np.ones(n), [f"head {i}" for i in range(n)])
        layers = ["down 0" if i < n // 2 else "up 0" for i in range(n)]
        path = interactions.matrix(
            table, layers, tmp_path / f"{n}.png", "How heads work together", "Said of them. " * 30
        )
        assert imread(path).std() > 0.05
    none = pairs_of(np.zeros((3, 3)), np.zeros(3), ["a", "b", "c"])
    assert interactions.matrix(none, ["x", "x", "y"], tmp_path / "none.png", "None").exists()


def test_gains_that_may_be_none_stand_in_brackets_and_can_be_read(tmp_path, monkeypatch):
    """By hand: +0.20 in [-0.1, 0.5] may be none, +0.30 in [0.1, 0.5] is not."""
    written = {}
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **how: written.update({text: how["color"]}))
    shared = {"label": "object", "t": 1, "chance": 0.25, "accuracy": 0.5, "gain_high": 0.5}
    rows = [
        {"source": "noisy latent", "hookpoint": "noisy_latent", "order": 0, "gain": np.nan, "gain_low": np.nan},
        {"source": "network", "hookpoint": "conv_in", "order": 1, "gain": 0.2, "gain_low": -0.1},
        {"source": "network", "hookpoint": "mid_block", "order": 2, "gain": 0.3, "gain_low": 0.1},
    ]
    probe_map(pd.DataFrame([shared | row for row in rows]), tmp_path / "probes.png")
    assert {"(+.20)", "+.30", ".50"} <= set(written) and set(written.values()) <= {"white", INK}


def test_figures_are_read_on_every_ground():
    """By WCAG 2.2: white on white has a contrast of 1, white on black of 21; the better of white and ink is taken."""
    assert luminance((1, 1, 1)) == pytest.approx(1) and luminance((0, 0, 0)) == 0
    assert on((0.24, 0.4, 0.88)) == on((0.76, 0.25, 0.05)) == "white"  # full blue and orange
    assert on((0.86, 0.5, 0.33)) == on((0.97, 0.97, 0.97)) == INK  # pale orange, nearly white


def test_a_whole_layer_is_named_once_among_pairs():
    layers = ["up 0 · cross-attention", "up 0 · self-attention"]
    assert interactions.within(layers, ["up.0.attn2 · head 3", "up.0.attn1 · head 0"]) == [
        "up 0 · cross-attention · head 3",
        "up 0 · self-attention · head 0",
    ]
    assert interactions.within(layers, ["up.0.attn2 · cross-attention", "up.0.attn1 · self-attention"]) == layers
