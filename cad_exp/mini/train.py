"""What all training stages share: a loop with checkpoints and resume, EMA, one-cycle learning rate, progress, a log."""

import contextlib
import csv
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Loss = torch.Tensor | dict[str, torch.Tensor]


def device() -> torch.device:
    """Return the first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device, convolutions: bool = True) -> torch.autocast:
    """Make a context of bfloat16 arithmetic, where it saves time: on GPUs, and on CPUs with AVX-512 bf16.

    On such CPUs it halves the time of a step, elsewhere it only costs. convolutions: whether the network has large
    ones.
    """
    useful = where.type == "cuda" or convolutions and torch.backends.mkldnn.is_available() and bf16_is_fast()
    return torch.autocast(where.type, torch.bfloat16, enabled=useful)


def bf16_is_fast() -> bool:
    """Return whether the CPU has AVX-512 bf16."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


class Progress:
    """One line of progress with the remaining time: a bar in a terminal, else a printed line every ten seconds."""

    def __init__(self, title: str, total: int, done: int = 0, every: float = 10.0) -> None:
        self.title, self.total, self.first, self.every = title, total, done, every
        self.begun = self.printed = time.monotonic()
        self.bar: Bar | None = None

    def __enter__(self) -> "Progress":
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            fields = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*fields, TextColumn("{task.fields[note]}"))
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.first, note="")
            self.bar.start()
        return self

    def at(self, done: int, note: str = "") -> None:
        """Show that `done` of the total is done, with a note behind it."""
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self.printed >= self.every or done >= self.total:
            self.printed = now
            each = (now - self.begun) / max(done - self.first, 1)
            left = time.strftime("%H:%M:%S", time.gmtime(each * (self.total - done)))
            print(f"{self.title}: {done}/{self.total}  {each:.3f} s each  {left} left  {note}", flush=True)

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


class Ema:
    """A moving average of a module's state; its decay grows with the step so that early weights are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the module's present weights into the average; step: counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names = [key for key, value in self.state.items() if value.is_floating_point()]
        now = model.state_dict()
        torch._foreach_lerp_([self.state[key] for key in names], [now[key] for key in names], 1 - decay)
        for key in self.state.keys() - set(names):
            self.state[key].copy_(now[key])


def one_cycle(step: int, steps: int, warm: float = 0.08, last: float = 0.01) -> float:
    """Return the learning rate's factor: linear up over the first `warm` of the steps, a cosine down to `last`."""
    at = step / max(steps, 1)
    if at < warm:
        return max(at / warm, 1e-2)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (at - warm) / (1 - warm)))


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[np.random.Generator], Loss],
    work: str | Path,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    decay: float = 0.999,
    every: float = 120.0,
    export: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train `model` and return its averaged weights.

    `loss(rng)` draws its own batch with the generator that it is given, which depends on the stage's name and the step
    alone; so a resumed run ends with the very weights of an uninterrupted one. Every `every` seconds a checkpoint goes
    to `work/<name>.pt`, and `export`, if given, gets the averaged weights. A finished stage returns at once. Losses go
    to `<name>.csv`.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, log = work / f"{name}.pt", work / f"{name}.csv"
    ema = Ema(model, decay)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        first = saved["step"]
        model.load_state_dict(saved["model"])
        ema.state = {k: v.to(ema.state[k].device) for k, v in saved["ema"].items()}
        optimizer.load_state_dict(saved["optimizer"])
        print(f"{name}: resumed at step {first}", flush=True)

    def save(step: int) -> None:
        state = {"step": step, "model": model.state_dict(), "ema": ema.state, "optimizer": optimizer.state_dict()}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
        if export:
            export(ema.state)

    model.train()
    saved_at = time.monotonic()
    running: dict[str, float] = {}
    with Progress(name, steps, first) as progress, alone(work, name):
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * one_cycle(step, steps)
            key = [int.from_bytes(name.encode()[:8], "little"), step]
            torch.manual_seed(np.random.SeedSequence(key).generate_state(1)[0])
            parts = loss(np.random.default_rng(key))
            parts = parts if isinstance(parts, dict) else {"loss": parts}
            optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            ema.update(model, step)
            if step % 10 == 9 or step + 1 == steps:
                values = {k: float(v.detach()) for k, v in parts.items()}
                running = {k: 0.9 * running.get(k, v) + 0.1 * v for k, v in values.items()}
                append(log, {"step": step + 1, **values})
            progress.at(step + 1, "  ".join(f"{k} {v:.4f}" for k, v in running.items()))
            if time.monotonic() - saved_at > every or step + 1 == steps:
                save(step + 1)
                saved_at = time.monotonic()
    return ema.state


@contextlib.contextmanager
def alone(work: Path, name: str) -> Iterator[None]:
    """Refuse a second run of one stage in one folder: they would overwrite each other's checkpoints."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with (work / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Stage '{name}' already runs in {work}; wait for it, or give --work another folder."
            ) from None
        yield


def append(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file, with a header if the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)


def batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Yield consecutive index ranges that cover `count`."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def save_weights(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Write one safetensors file atomically."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
