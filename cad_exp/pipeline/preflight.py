"""Check that everything is at hand that a run needs, before anything heavy is imported.

A command that cannot work is answered within seconds: the graph of a run knows its files, weights and judges.
"""

from __future__ import annotations

from typing import Any

from cad_exp.pipeline.cache.folder import CacheFolder
from cad_exp.pipeline.stage import graph as nodes_of
from cad_exp.pipeline.tasks.attribute import Attribute, build


def check(config: dict[str, Any]) -> Attribute:
    """Return the graph of a resolved config, of which every node has what it requires.

    Raises:
        UserError: the first thing that cannot be had: the model, a file, a judge; or a question that makes no sense.
    """
    if config["runtime"]["cache"]:
        CacheFolder(config["runtime"]["cache"])  # refuses a folder that is no cache
    graph = build(config)
    for node in nodes_of(*graph.nodes()):
        node.requires()
    return graph
