"""What the activations of task=probe and task=sae take: `python -m cad_exp memory task=sae model=sd15,sdxl`.

Shapes come from the models' true configs on the meta device, formulas from `cad_exp/representations/sizes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cad_exp.utils import console
from cad_exp.utils.errors import UserError

if TYPE_CHECKING:
    from cad_exp.representations.sizes import Place, Size

GIB = 2**30
TASKS = ("probe", "sae")


def size(name: str, config: dict[str, Any]) -> Size:
    """Return what the activations of the model of this name take under a composed config of task=probe or task=sae.

    Raises:
        UserError: an unknown model or hookpoint, or a number of images that only their folder knows.
    """
    from cad_exp.pipeline.tasks import probe, sae
    from cad_exp.representations import NOISY_LATENT, sizes
    from cad_exp.representations.probes.registry import PROBES

    images = config["images"]["number"]
    if images is None:
        raise UserError("images.number is open, and only the images themselves know it: give images.number=5000")
    if config["task"]["name"] == "probe":
        asked, settings = config["activations"], config["probe"]
        found = _places(name, config, [NOISY_LATENT, *asked["hookpoints"]])
        times, pooling = len(_listed(asked["timesteps"])), PROBES.of(settings).wants
        return sizes.of_probes(found, images, times, asked["draws"], pooling, probe.BATCH, settings["untrained"])
    asked = config["tokens"]
    noised = asked["name"] == "noised"
    reads = len(_listed(asked["timesteps"])) * asked["draws"] if noised else asked["steps"]
    found = _places(name, config, _listed(asked["hookpoints"]))
    return sizes.of_tokens(found, images, reads, asked["positions"], sae.BATCH, noised)


def show(task: str, found: dict[str, Size]) -> None:
    """Print the table on the terminal, in GiB."""
    from rich.table import Table

    table = Table(title=f"activations of task={task}, GiB")
    table.add_column("model", no_wrap=True)
    work = "memory, training" if task == "sae" else "memory, a probe"
    for head in ("places", "on disk", "memory, a batch of images", work):
        table.add_column(head, justify="right")
    for name, each in found.items():
        table.add_row(name, str(each.places), *(f"{n / GIB:.2f}" for n in (each.disk, each.part, each.work)))
    console.console().print(table)


def _places(name: str, config: dict[str, Any], hookpoints: list[str]) -> dict[str, Place]:
    """Return the shapes of a model's hookpoints, from a forward pass without data."""
    from types import SimpleNamespace

    import torch

    from cad_exp.attribution import meta
    from cad_exp.representations import sizes
    from cad_exp.representations.hookpoints import choose_hookpoints

    facts = meta.describe(name, config["model"].get("path"), config["model"].get("config"))
    network: Any = meta.denoiser(facts, "bf16")
    side = meta.latent(facts, config["model"].get("resolution"))
    shell: Any = SimpleNamespace(denoiser=network, pipe=None, name=name)  # all that a search for places looks at

    def call(denoiser: torch.nn.Module) -> None:
        args, kwargs = meta.inputs(denoiser, facts, side, 1, torch.device("meta"), torch.bfloat16)
        denoiser(*args, **kwargs)

    with meta.flash():
        return sizes.places(network, call, choose_hookpoints(shell, hookpoints), (side**2, meta.channels(network)))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
