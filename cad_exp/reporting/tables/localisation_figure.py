"""The picture of the study `localisation`: per concept a heat map of layers by parts of the denoising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cad_exp.reporting.figures.canvas import INK, PALE, SIGNED, canvas, name_rows, percent, save, separate
from cad_exp.reporting.tables.collect import Found
from cad_exp.reporting.tables.localisation import CONCEPT_KINDS, layer_of, read, whens
from cad_exp.reporting.tables.plan import Plan

ACROSS = 6  # panels side by side
OUTSTANDING = 1.5  # times its even share: from there on a part of the denoising is worth a line
LEFT, PANEL, GAP, GROUP_GAP, ABOVE, BELOW = 2.75, 1.5, 0.14, 0.3, 1.02, 0.88  # inches in the picture


def draw(plan: Plan, found: Found, path: Path) -> Path | None:
    """Draw one heat map per concept, layers by parts of the denoising, on one scale; None where no run is there yet.

    A cell is the layer's effect in that part alone. ACROSS panels stand side by side, concepts of one kind together.
    The lines above a panel name its largest shares (`takeaway`).
    """
    table = read(plan, found)
    if table.empty:
        return None
    latents = table.groupby(["concept", "module"])["n_latents"].transform("sum")
    table = table.assign(cell=table["effect"] * latents / table["n_latents"], when=whens(table))
    panels = [own for _, own in table.groupby("concept", sort=False)]
    lines = [panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)]
    body = 0.19 * max(table["module"].nunique(), 5)
    width = max(LEFT + max(map(len, lines)) * (PANEL + GROUP_GAP) + 0.9, 9.6)
    height = 0.75 + len(lines) * (ABOVE + body + BELOW)
    figure = canvas(width, height)
    # A few cells are far beyond all others: they get the last colour, or the rest would be pale.
    reach = float(table["cell"].abs().quantile(0.98)) or float(table["cell"].abs().max()) or 1.0
    for number, line in enumerate(lines):
        bottom = height - 0.75 - (number + 1) * (ABOVE + body) - number * BELOW
        image, end = _line(figure, line, bottom, body, reach)
        if number == 0:
            _scale(figure, image, figure.add_axes(((end + 0.2) / width, bottom / height, 0.13 / width, body / height)))
    head: dict[str, Any] = {"fontsize": 13, "fontweight": "bold", "color": INK, "va": "top"}
    figure.text(0.15 / width, 1 - 0.12 / height, plan.study.title, **head)
    said = (
        "Orange layers make the concept in that part of the denoising, blue ones suppress it: what switching the layer "
        "off takes from J.\nPercentages: of the sum of the concept's positive effects."
    )
    figure.text(0.15 / width, 1 - 0.4 / height, said, fontsize=8.8, color=PALE, va="top")
    return save(figure, path)


def _line(figure: Any, panels: list[pd.DataFrame], bottom: float, body: float, reach: float) -> tuple[Any, float]:
    """Panels side by side from `bottom` (inches) up, under the names of their groups; an image and the right end."""
    width, height = figure.get_size_inches()
    x, group = LEFT, None
    for place, own in enumerate(panels):
        kind = own["concept_kind"].iloc[0]
        x += (GAP if kind == group else GROUP_GAP) * (place > 0)
        axes = figure.add_axes((x / width, bottom / height, PANEL / width, body / height))
        image = _panel(axes, own, reach, labelled=place == 0)
        if kind != group:
            name, y = CONCEPT_KINDS.get(kind, kind), (bottom + body + ABOVE - 0.12) / height
            figure.text(x / width, y, name, fontsize=10.5, fontweight="bold", color=INK, va="center")
        x, group = x + PANEL, kind
    below = "timesteps of the denoising: noise on the left, the finished image on the right"
    figure.text(LEFT / width, (bottom - 0.72) / height, below, fontsize=8.5, color=INK)
    return image, x


def _panel(axes: Any, own: pd.DataFrame, reach: float, labelled: bool) -> Any:
    """Draw the heat map of one concept; its name and its largest shares stand above it."""
    layers = own.drop_duplicates("module")[["part", "layer", "kind"]].to_dict("records")
    cells = own.pivot_table(index="module", columns="when", values="cell", sort=False)
    image = axes.imshow(cells, cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    separate(axes, [layer["part"] for layer in layers])
    axes.set_xticks(range(len(cells.columns)), cells.columns, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    if labelled:
        name_rows(axes, [layer["layer"] for layer in layers], [layer["kind"] for layer in layers])
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="x", labelsize=7)
    concept = str(own["concept"].iloc[0]).replace("_", " ")
    axes.annotate(takeaway(own), (0, 1), (0, 3), "axes fraction", "offset points", fontsize=7.2, color=PALE)
    axes.annotate(concept, (0, 1), (0, 43), "axes fraction", "offset points", fontsize=9.5, color=INK)
    return image


def takeaway(own: pd.DataFrame) -> str:
    """Say on up to four lines what one concept is made by, each with its share.

    That is the largest kind of module, the strongest layer (on two lines), and the largest part of the denoising where
    it stands out.
    Shares are of the sum of its positive effects, as in `summary`.
    """
    positive = own["effect"].clip(lower=0) / own["effect"].clip(lower=0).sum()
    if not positive.any():
        return "no positive effect"
    kinds, parts = (positive.groupby(group, sort=False).sum() for group in (own["kind"], whens(own)))
    module = own.groupby("module", sort=False)["effect"].sum().idxmax()
    first, share = layer_of(own, module), positive[own["module"] == module].sum()
    lines = [f"{kinds.idxmax()}: {percent(100 * kinds.max())}"]
    lines += [f"{first['layer']},", f"{first['kind']}: {percent(100 * share)}"]
    latents = own.groupby(whens(own), sort=False)["n_latents"].first()
    when = str(parts.idxmax())
    if parts.max() >= OUTSTANDING * latents[when] / latents.sum():
        lines.append(f"t = {when}: {percent(100 * parts.max())}")
    return "\n".join(lines)


def _scale(figure: Any, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, cax=axes, extend="both", extendfrac=0.02)
    bar.set_label("effect on J, one scale for all", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
