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

    Args:
        attribution: the scores.
        granularity: whose; may be left out where there is one only.
        path: of a PNG file to write.
        title: over the picture.

    Returns:
        The figure; with `path` the file.

    Raises:
        UserError: there are several granularities and none is named, or none of this name.

    Examples:
        >>> model = cad_exp.DiffusionModel.load("mini", device="cpu", steps=2)
        >>> latents = cad_exp.sample_trajectory(model, "church", seeds=[0], steps=2)
        >>> attribution = cad_exp.attribute(model, latents, granularities=["layer"])
        >>> figure = cad_exp.plot(attribution)
        >>> figure.savefig("church.png")
    """
    name = attribution.only(granularity)
    if path is None:
        return attribution_figure(attribution, name, title)
    return attribution_map(attribution, name, path, title)
