"""The graph of a config and where its stages are made, for tests that look at single stages."""

from pathlib import Path
from typing import Any

from cad_exp.config.resolve import resolve
from cad_exp.data.requests import ImageRequest
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.images import Pictures
from cad_exp.pipeline.tasks import nodes
from cad_exp.pipeline.tasks.attribute import Attribute, build
from tests.config.test_configs import composed


def graph_of(folder: Path, *overrides: str) -> tuple[Runtime, Attribute, dict[str, Any]]:
    """The runtime on a cache in this folder, the graph, and the resolved config."""
    config = resolve(composed(*overrides))
    return Runtime(config["runtime"] | {"cache": str(folder)}, folder), build(config), config


def unedited(config: dict[str, Any], graph: Attribute, requests: list[ImageRequest]) -> Pictures:
    """Images of these requests from the intact model."""
    return nodes.pictures(config, graph.model, None, requests, "unedited")
