"""`cad_exp.plot(attribution)`: the picture of an attribution for a notebook or a file.

It stands here and is no method: an attribution lies below the floor of reporting and knows nothing of pictures.
"""

from pathlib import Path

from matplotlib.figure import Figure

from cad_exp.attribution.attribute import Attribution
from cad_exp.reporting.figures.attribution import attribution_figure, attribution_map


def plot(
    attribution: Attribution, granularity: str | None = None, path: Path | str | None = None, title: str = ""
) -> Figure | Path:
    """Draw which layers and kinds of component carry the concept, and which suppress it.

    granularity: may be left out where there is one only. Returns the figure, or with `path` the PNG file.
    """
    name = attribution.only(granularity)
    if path is None:
        return attribution_figure(attribution, name, title)
    return attribution_map(attribution, name, path, title)
