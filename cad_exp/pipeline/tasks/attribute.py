"""task=attribute: score the components of a concept, edit the model by the scores, and see what its images lose.

model ── noisy latents ── scores ── edit ──┬── images ── judgements ── metrics
                             ├── fidelity  └── random edit beside it
                             ├── scores by timestep
                             └── images with one component switched off
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cad_exp.config.expand import alone
from cad_exp.data import prompts
from cad_exp.data.requests import ImageRequest
from cad_exp.interventions.methods import needs_scores
from cad_exp.pipeline.stage import Node
from cad_exp.pipeline.stages.fidelity import Fidelity
from cad_exp.pipeline.stages.images import Pictures
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.judgements import Judged
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.stages.noisy_latents import PromptLatents
from cad_exp.pipeline.stages.scores import SpaceScores, Timesteps
from cad_exp.pipeline.tasks import nodes

if TYPE_CHECKING:
    from cad_exp.interventions.edit import Edit
    from cad_exp.pipeline.runtime import Runtime

Config = dict[str, Any]


@dataclass(frozen=True)
class Attribute:
    """The graph of a run. What its config does not ask for is None or empty; variant -> edit, images, judgements."""

    model: Model
    judge: Judge | None
    erased: Attribute | None
    latents: PromptLatents | None = None
    scores: SpaceScores | None = None
    edits: dict[str, Node[Edit]] = field(default_factory=dict)
    fidelity: Fidelity | None = None
    timesteps: Timesteps | None = None
    requests: list[ImageRequest] = field(default_factory=list)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    judged: dict[str, Judged] = field(default_factory=dict)
    counterfactuals: tuple[Pictures, ...] = ()  # each with one component switched off

    def switched_off(self, runtime: Runtime) -> list[tuple[Pictures, Edit]]:
        """Return the images with one component switched off, each with its edit, as far as there are components."""
        every = [(each, runtime.get(node)) for each in self.counterfactuals if (node := each.parts[0].edit) is not None]
        return [(pictures, edit) for pictures, edit in every if not edit.empty]

    def nodes(self) -> list[Node[Any]]:
        """Return the graph's ends: all else is what they depend on."""
        ends: list[Node[Any] | None] = [
            self.model,
            self.judge,
            self.latents,
            self.scores,
            self.fidelity,
            self.timesteps,
        ]
        ends += [*self.edits.values(), *self.pictures.values(), *self.judged.values(), *self.counterfactuals]
        return [*(self.erased.nodes() if self.erased else []), *(node for node in ends if node is not None)]


def build(config: Config) -> Attribute:
    """Return the graph of a resolved config. UserError for questions that cannot be asked."""
    erased = build(alone(config)) if config["model"]["erased"] else None
    model = Model.of(config["model"], erased.edits["edited"] if erased else None)
    judge = nodes.judge(config)
    if needs_scores(config["edit"]):
        found = _scored(config, model, judge, erased)
    else:
        found = Attribute(model, judge, erased, edits=nodes.replaced_weights(config, model))
    requests = prompts.plan(config)
    variants = {"unedited": None, **found.edits} if requests else {}
    pictures = {variant: nodes.pictures(config, model, edit, requests, variant) for variant, edit in variants.items()}
    judged = {v: Judged.of(judge, each, pictures["unedited"]) for v, each in pictures.items()} if judge else {}
    alone_off = nodes.counterfactuals(config, found.scores, requests) if found.scores else ()
    return replace(found, requests=requests, pictures=pictures, judged=judged, counterfactuals=alone_off)


def _scored(config: Config, model: Model, judge: Judge | None, erased: Attribute | None) -> Attribute:
    """Return the graph as far as the edits that scores choose, and the studies of the scores."""
    latents = nodes.noisy_latents(config, model)
    scores = nodes.scores(config, latents, nodes.question(config, model, judge))
    edits, timesteps = nodes.scored_edits(config, scores, judge), nodes.timesteps(config, scores)
    return Attribute(model, judge, erased, latents, scores, edits, nodes.fidelity(config, scores, judge), timesteps)
