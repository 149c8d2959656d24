"""Check that everything is at hand that a run needs, before anything heavy is imported.

A command that cannot work is answered within seconds: the graph of a run knows its files, weights and judges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cad_exp.config.expand import runs
from cad_exp.data import image_folder
from cad_exp.pipeline.cache.folder import CacheFolder
from cad_exp.pipeline.stage import graph as nodes_of
from cad_exp.pipeline.stages.model import Model
from cad_exp.pipeline.tasks import analyse, attribute, probe, sae

Graph = attribute.Attribute | probe.Probe | sae.Sae | analyse.Analyse
TASKS: dict[str, Callable[[dict[str, Any]], Graph]] = {
    "attribute": attribute.build,
    "probe": probe.build,
    "sae": sae.build,
    "analyse": analyse.build,
}


def check(config: dict[str, Any]) -> Graph:
    """Return the graph as `graph_of` does; refuse also a folder that is no cache."""
    graph = graph_of(config)
    check_cache(config)
    return graph


def check_cache(config: dict[str, Any]) -> None:
    """Raise UserError for a folder that is no cache. What is absent or empty becomes one."""
    if config["runtime"]["cache"]:
        CacheFolder(config["runtime"]["cache"])


def graph_of(config: dict[str, Any]) -> Graph:
    """Return the graph of a resolved config, of which every node has what it requires. Nothing is written.

    Raises:
        UserError: the first thing that cannot be had: the model, a file, a judge; or a question that makes no sense.
    """
    Model.of(config["model"]).requires()  # first, for nothing else matters without it
    asks = config["task"]["name"] == "attribute"
    for each in runs(config) if asks else ():
        if each["noisy_latents"]["images"]:  # also where the objective has no use for them
            image_folder.check_and_tell(each["noisy_latents"]["images"], "noisy_latents.images")
    graph = TASKS[config["task"]["name"]](config)
    for node in nodes_of(*graph.nodes()):
        if not isinstance(node, Model):
            node.requires()
    return graph
