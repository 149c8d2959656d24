"""Pictures that the run itself drew: timesteps, interactions, maps of probes, pages of latents."""

from __future__ import annotations

from dataclasses import dataclass

from cad_exp.reporting.html.pictures import Picture, figure
from cad_exp.reporting.html.source import Source

# what stands above each picture, which has a title of its own, so no heading repeats it; and what it shows, in words
FIGURES = {
    "timesteps.png": ("Over the timesteps", "scores by layer and by part of the denoising"),
    "interactions.png": ("Interactions", "matrix of the interactions of all pairs of components"),
    "fidelity_curves.png": ("Everything switched off, in order", "J while components go in the order of their scores"),
    "fidelity_images.png": ("Do the scores tell what images show?", "predicted effects against what a judge sees"),
    "probes.png": ("Map of the probes", "accuracy of probes by layer and timestep"),
    "features.png": ("Measures of the autoencoder", "measures of the autoencoder and of its controls"),
    "latents.png": ("Latents and their images", "images on which latents act most"),
    "analysis.png": ("What was found", "the views of the analysis"),
}
PAGES = "latents"
PAGE = 900  # pixels of a latent's page


@dataclass(frozen=True)
class Figure:
    """A picture of the run under its own heading; file: its name in the folder."""

    title: str
    file: str
    picture: Picture


@dataclass(frozen=True)
class Drawn:
    """figures: each under a heading of its own; pages: of single latents."""

    figures: list[Figure]
    pages: list[Figure]


def drawn(source: Source) -> Drawn | None:
    """Return the pictures of a run that no other part shows; None where it drew none."""
    figures = [
        Figure(title, name, figure(source.folder / name, f"{title}: {alt}"))
        for name, (title, alt) in FIGURES.items()
        if source.has(name)
    ]
    pages = [
        Figure(_named(path.stem), f"{PAGES}/{path.name}", figure(path, f"Page of {_named(path.stem)}", PAGE))
        for path in sorted((source.folder / PAGES).glob("*.png"))
    ]
    return Drawn(figures, pages) if figures or pages else None


def _named(stem: str) -> str:
    """Return how a page is headed: "latent 17" by its number, other names as words."""
    return f"latent {stem}" if stem.isdigit() else stem.replace("_", " ")
