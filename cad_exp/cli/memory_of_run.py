"""What a run holds beside the GPU, in the machine's own memory: noisy latents, trained gates, interactions.

The graph of the run says what there is, formulas are in `cad_exp/attribution/sizes.py`. Nothing is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cad_exp.utils import console

if TYPE_CHECKING:
    from torch import nn

    from cad_exp.attribution.sizes import Held
    from cad_exp.pipeline.stage import Node
    from cad_exp.pipeline.stages.noisy_latents import PromptLatents

GIB = 2**30


def held(config: dict[str, Any], folders: Sequence[Path]) -> tuple[int | None, Held]:
    """Return the number of components of a composed config of task=attribute, and what its run holds.

    None: only files tell how many there are, so gates and interactions count as nothing.

    Raises:
        UserError: the config asks for something that no run can do.
    """
    from cad_exp.attribution import meta, sizes
    from cad_exp.config.resolve import resolve
    from cad_exp.pipeline.stage import graph
    from cad_exp.pipeline.stages.fidelity import Fidelity
    from cad_exp.pipeline.stages.instead import Nearest
    from cad_exp.pipeline.stages.joint import Gates, GatesTask
    from cad_exp.pipeline.stages.noisy_latents import Noised, PromptLatents
    from cad_exp.pipeline.tasks import attribute

    model = config["model"]
    facts = meta.describe(model["name"], model.get("path"), model.get("config"))
    network = meta.denoiser(facts, "bf16")
    numbers = meta.latent(facts, model.get("resolution")) ** 2 * meta.channels(network)
    config = resolve(config, folders)
    every = graph(*attribute.build(config).nodes())
    never = {id(prompt) for node in every if isinstance(node, Nearest) for prompt in node.each[1:]}  # one is made
    latents = 0
    for node in every:
        if isinstance(node, PromptLatents) and id(node) not in never:
            noised = isinstance(node.parts[0], Noised)
            latents += sizes.of_latents(_rows(node), numbers, 4 if noised else 3, not noised)
        elif isinstance(node, GatesTask):
            latents += sizes.of_task(sum(map(_rows, node.latents)), bool(node.landing), numbers)
    n, per_row = _components(network, config["granularity"])
    found, studies = sum(isinstance(node, Gates) for node in every), [n for n in every if isinstance(n, Fidelity)]
    strengths = (found + 1) // 2 + (found > 1)  # of those between two others one at most is tried
    asked = max((_measured(study, numbers, n, per_row) for study in studies), default=0) if n else 0
    finding = sizes.FINDING * n if n and strengths else 0
    return n, sizes.Held(latents, (n or 0) * sizes.GATE * strengths, finding, asked)


def _rows(node: PromptLatents) -> int:
    """Return the number of noisy latents of a prompt."""
    from cad_exp.pipeline.stages.noisy_latents import Noised

    return sum(part.n if isinstance(part, Noised) else part.work for part in node.parts)


def _components(network: nn.Module, granularity: dict[str, Any]) -> tuple[int | None, bool]:
    """Return how many components a granularity has, and whether the rows of a batch have gates of their own."""
    from cad_exp.interventions.granularity_registry import OWN
    from cad_exp.interventions.spaces import FF_IN, TEXT, find_sites, make_granularity

    kinds = granularity["kinds"] or ()
    if granularity["name"] == "none":  # of an edit that goes by no scores
        return 0, True
    if granularity["name"] not in OWN or set(kinds) & set(TEXT):
        return None, True
    space = make_granularity(granularity["name"], kinds or None).on(find_sites(network, FF_IN in kinds))
    return space.n, space.per_row


def _measured(study: Node[Any], numbers: int, n: int, per_row: bool) -> int:
    """Return what a fidelity study takes for interactions."""
    from cad_exp.attribution import sizes
    from cad_exp.attribution.interactions.second_order import FEW
    from cad_exp.attribution.objectives import OBJECTIVES
    from cad_exp.pipeline.stages.fidelity import FOR_PAIRS, Fidelity

    assert isinstance(study, Fidelity)
    most = study.settings["second_order"]
    if most is None:
        return 0
    scores = study.scores.scores
    latents = min(_rows(scores.latents), most, *([FOR_PAIRS] if n <= FEW else []))
    distance = OBJECTIVES.of(scores.question.chosen.settings).distance
    return sizes.of_interactions(n, latents, numbers, distance and per_row)


def show(found: dict[str, tuple[int | None, Held]]) -> None:
    """Print the table on the terminal, in GiB."""
    from rich.table import Table

    table = Table(title="memory of the machine itself for a whole run, GiB")
    table.add_column("model", no_wrap=True)
    for head in ("components", "noisy latents", "gates and edits", "interactions", "at most"):
        table.add_column(head, justify="right")
    for name, (n, each) in found.items():
        bytes_of = (each.latents, each.gates + each.finding, each.interactions, each.most)
        table.add_row(name, "?" if n is None else f"{n:,}", *(f"{number / GIB:.2f}" for number in bytes_of))
    console.console().print(table)
