"""Row 4: images per second of `DiffusionModel.generate`, against a plain loop over the pipeline, one image a call."""

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Bench, Row, alternate, row, seconds
from cad_exp import DiffusionModel

PROMPTS = ("a photo of a church", "a photo of a tench", "a photo of a person", "a photo in the style of Van Gogh")
# Dense half-precision peak of common devices in FLOP/s, from the makers' data sheets.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40": 181e12,
    "4090": 165e12,
    "A10": 125e12,
    "V100": 125e12,
    "L4": 121e12,
    "T4": 65e12,
}


def rows(bench: Bench) -> Iterator[Row]:
    """Batches of several sizes; on a GPU also compiled and channels-last, with the share of the peak FLOP/s."""
    model = bench.load()
    steps, few = bench.size(model.steps, 2), bench.size(8, 2)
    _loop(model, 1, steps)
    for size in batches(model, bench):
        yield _compare(model, size, steps, few, bench, f"images per second, batch {size}")
    if torch.cuda.is_available():
        model.pipe.unet.to(memory_format=torch.channels_last)
        model.pipe.vae.to(memory_format=torch.channels_last)
        model.pipe.unet.compile()
        warm = seconds(lambda: model.generate(PROMPTS[:1] * size, range(size), steps, batch_size=size))
        name = f"images per second, batch {size}, compiled, channels-last"
        yield _compare(model, size, steps, few, bench, name, f"; compiling took {warm:.0f} s")


def batches(model: DiffusionModel, bench: Bench) -> list[int]:
    """Sizes to try: on a GPU the largest power of two that half of the free memory should hold, measured on one."""
    if bench.quick:
        return [2]
    if not torch.cuda.is_available():
        return [8, 16, 32, 64]
    model.generate(PROMPTS[:1], [0], 1)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model.generate(PROMPTS[:2], [0, 1], 1, batch_size=2)
    each = max(1, (torch.cuda.max_memory_allocated() - before) // 2)
    fitting = int(torch.cuda.mem_get_info()[0] // 2 // each)
    return sorted({min(8, _power(fitting)), min(64, _power(fitting))})


def _compare(model: DiffusionModel, size: int, steps: int, few: int, bench: Bench, name: str, extra: str = "") -> Row:
    count = size * max(1, bench.size(32, 2) // size)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    ours, peer = alternate(
        lambda: model.generate(prompts, range(count), steps, batch_size=size),
        lambda: _loop(model, few, steps),
        repeats=bench.repeats,
    )
    ours, peer = count / ours, few / peer
    share = ours * flops_per_image(model, steps) / peak(model)
    note = f"{steps} steps; UNet alone at {share:.0%} of {'the' if _known() else 'a measured'} peak FLOP/s{extra}"
    return row(name, "images/s", ours, peer, ours / peer, ">= 3", note)


def _loop(model: DiffusionModel, count: int, steps: int) -> None:
    for i in range(count):
        model.pipe(
            PROMPTS[i % len(PROMPTS)],
            num_inference_steps=steps,
            guidance_scale=model.guidance,
            height=model.resolution,
            width=model.resolution,
            generator=torch.Generator().manual_seed(i),
            output_type="np",
        )


def flops_per_image(model: DiffusionModel, steps: int) -> float:
    """Multiplications and additions of the UNet for one guided image, as PyTorch counts them (matmul, convolution)."""
    x = model.noise_like([0, 1])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.predict(x, torch.tensor([500, 500]), model.encode(["a", "b"]))
    return counter.get_total_flops() * steps


def peak(model: DiffusionModel) -> float:
    """FLOP/s that the device can do: by its name, else the best of a few large matrix products."""
    if _known():
        return _known()
    a = torch.randn(1024, 1024, device=model.device, dtype=model.dtype)
    return 2 * 1024**3 / min(seconds(lambda: a @ a) for _ in range(10))


def _known() -> float:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for key, flops in PEAKS.items() if key in name), 0.0)


def _power(n: int) -> int:
    return 1 << max(0, n.bit_length() - 1)
