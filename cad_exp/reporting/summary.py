"""The tables, places and verdict of a run, as the terminal shows them."""

import re
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD, Box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cad_exp.evaluation.variants import DICTIONARIES, NETWORK, VARIANTS
from cad_exp.reporting.wording import FEATURES, LABELS, drawn_instead, number, warnings_of
from cad_exp.utils import text
from cad_exp.utils.console import clean, console, glyph, say

ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def metrics_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric, one column per variant and one for the change by the edit; 80 columns hold whole numbers.

    Under each value stands its interval, under the metric's name how many images it is of.
    """
    box = SIMPLE_HEAD if glyph("─", "-") == "─" else ASCII_HEAD
    table = Table(title=escape(clean(title)) or None, title_justify="left", header_style="bold", box=box, padding=0)
    table.show_edge = table.pad_edge = False
    table.add_column("metric", no_wrap=True)
    for column in (*VARIANTS, "change"):
        table.add_column(column, justify="right", style="bold" if column == "edited" else None)
    for name in dict.fromkeys(metric["name"] for metric in metrics):
        cells = {metric["variant"]: metric for metric in metrics if metric["name"] == name}
        sizes = "/".join(dict.fromkeys(str(cell["n"]) for cell in cells.values()))
        change = cells.get("edited", {}).get("changes", {}).get("unedited")
        shown = [*(cells.get(variant) for variant in VARIANTS), change]
        table.add_row(f"{_label(next(iter(cells.values())))}\n[dim]n = {sizes}[/]", *map(_stacked, shown))
    return table


def _stacked(metric: dict[str, Any] | None) -> str:
    """Return a value, marked where it carries a warning, over its interval."""
    if metric is None:
        return number(None)
    mark = "*" if metric.get("definition", {}).get("warning") else ""
    value = escape(number(metric["value"]) + mark)
    if metric["low"] is None:
        return value
    low, high = (re.sub(r"^(-?)0\.", r"\1.", number(metric[end])) for end in ("low", "high"))
    return f"{value}\n[not bold dim]{escape('[' + low)}, {high}][/]"


def scores_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric of the scores themselves: value [low, high] and n."""
    table = Table(title=escape(clean(title)) or None, title_justify="left", header_style="bold")
    table.add_column("metric", no_wrap=True)
    for column in ("value", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for metric in metrics:
        table.add_row(_label(metric), _cell(metric), str(metric["n"]))
    return table


def probes_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """Return a table with one column per label: what a probe reads from each source, over its interval."""
    plain = [metric for metric in metrics if metric["name"].count("@") == 1]
    found = {(m["name"].partition("@")[2], m["variant"], m["name"].partition("@")[0]): m for m in plain}
    box = SIMPLE_HEAD if glyph("─", "-") == "─" else ASCII_HEAD
    table = Table(title=escape(clean(title)) or None, title_justify="left", header_style="bold", box=box, padding=0)
    table.show_edge = table.pad_edge = False
    table.add_column("read from", no_wrap=True)
    labels = dict.fromkeys(label for label, _, _ in found)
    for label in labels:
        gain = found[label, NETWORK, "gain"]
        head = f"{escape(clean(label))}\n[dim]n = {gain['n']}, chance {1 / gain['definition']['classes']:.2f}[/]"
        table.add_column(head, justify="right", no_wrap=True)
    for source in dict.fromkeys(source for _, source, _ in found):
        name = source.replace("principal components of pixels", "PCA of pixels")
        table.add_row(name, *(_stacked(found.get((label, source, "accuracy"))) for label in labels))
    table.add_row("gain of the network", *(_stacked(found[label, NETWORK, "gain"]) for label in labels), style="bold")
    return table


def features_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """Return a table with one row per measure of sparse features, the controls beside the autoencoder."""
    found = [metric for metric in metrics if metric["name"].split("@")[0] in FEATURES]
    return _beside(found, DICTIONARIES, "held-out images", title)


def analysis_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """Return a table with one row per measure of an analysis, its controls beside it."""
    return _beside(metrics, tuple(dict.fromkeys(metric["variant"] for metric in metrics)), "measure", title)


def _beside(found: list[dict[str, Any]], variants: tuple[str, ...], head: str, title: str) -> Table:
    """One row per metric, one column per variant; the level of chance below the name."""
    shown = [name for name in variants if any(metric["variant"] == name for metric in found)]
    box = SIMPLE_HEAD if glyph("─", "-") == "─" else ASCII_HEAD
    table = Table(title=escape(clean(title)) or None, title_justify="left", header_style="bold", box=box, padding=0)
    table.show_edge = table.pad_edge = False
    table.add_column(head)
    for number_of, name in enumerate(shown):
        table.add_column(name, justify="right", style=None if number_of else "bold")
    for name in dict.fromkeys(metric["name"] for metric in found):
        cells = {metric["variant"]: metric for metric in found if metric["name"] == name}
        kind, _, rest = name.partition("@")
        first = next(iter(cells.values()))
        arrow = _label({**first, "name": FEATURES.get(kind, kind.replace("_", " "))})
        chance = {cell["definition"].get("chance") for cell in cells.values()} - {None}
        under = f"[dim]n = {first['n']}" + (f", chance {number(max(chance))}[/]" if chance else "[/]")
        told = f"{arrow}, {escape(clean(rest.replace('@', ', ')))}" if rest else arrow
        table.add_row(f"{told}\n{under}", *(_stacked(cells.get(each)) for each in shown))
    return table


def _label(metric: dict[str, Any]) -> str:
    name, wanted = metric["name"], metric["higher_is_better"]
    arrow = "" if wanted is None else " " + (glyph("↑", "(higher)") if wanted else glyph("↓", "(lower)"))
    return escape(clean(LABELS.get(name, name))) + arrow


def _cell(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return number(None)
    interval = "" if metric["low"] is None else f" [{number(metric['low'])}, {number(metric['high'])}]"
    return escape(number(metric["value"]) + interval)


def show_metrics(metrics: list[dict[str, Any]], title: str = "") -> None:
    """Print how far the scores can be trusted, then the table of the images, and below it how to read it."""
    screen = console()
    if scores := [metric for metric in metrics if metric["variant"] == "attribution"]:
        screen.print()
        screen.print(scores_table(scores, "How far the scores can be trusted (docs/reference/fidelity.md)"))
    everything = metrics
    # Further thresholds and single labels (name@which) are for results.json and its tables.
    if metrics := [metric for metric in metrics if metric["variant"] != "attribution" and "@" not in metric["name"]]:
        screen.print()
        screen.print(metrics_table(metrics, title))
        for line in _reading(metrics, everything):
            screen.print(escape(line), style="yellow" if line.startswith("*") else "dim", soft_wrap=True)


def _reading(shown: list[dict[str, Any]], everything: list[dict[str, Any]]) -> list[str]:
    """Return the lines below the table of the images."""
    lines = [
        "value over [95 % interval]; the arrow is the direction this run wants; random: a random edit of equal budget"
    ]
    if any(metric.get("changes") for metric in shown):
        lines.append("change: edited less unedited, on the same prompts and seeds, with its own paired interval")
    if any(metric["name"].startswith("perceptual_distance") for metric in shown):
        lines.append("distance: perceptual, to the unedited image of the same prompt and seed, or to another seed's")
    if instead := drawn_instead(everything):
        lines.append(f"drawn by the edited model for the concept: {instead}")
    return lines + warnings_of(shown)


def show_places(places: dict[str, Path | str]) -> None:
    """Say where everything lies: what it is -> its path, relative to the current folder where it lies below it."""
    screen, width = console(), max(map(len, places), default=0)
    screen.print()
    for what, place in places.items():
        path = Path(place).absolute()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        screen.print(Text.assemble(f"{clean(what):<{width}}  ", (clean(text.line(shown)), "cyan")), soft_wrap=True)


def show_run(content: dict[str, Any], folder: Path) -> None:
    """Print the table of a finished run (what its results.json holds), where everything lies, and last the verdict."""
    run = content["run"]
    if run.get("task") == "sae":
        console().print(features_table(content["metrics"], f"{run['model']} · {run['tokens']} · {run['sae']}"))
        names = {"results": "results.json", "controls": "features.png", "latents": "latents.png"}
        names |= {"single latents": "latents", "autoencoders": "autoencoders"}
    elif run.get("task") == "analyse":
        console().print(analysis_table(content["metrics"], f"{run['model']} · {run['images']} · {run['analysis']}"))
        names = {"results": "results.json", "picture": "analysis.png", "table": "analysis.parquet"}
    elif run.get("task") == "probe":
        console().print(probes_table(content["metrics"], f"{run['model']} · {run['images']} · {run['probe']} probe"))
        names = {"results": "results.json", "map": "probes.png", "all places": "probes.parquet"}
    else:
        show_metrics(content["metrics"], f"{run['concept']} · {run['granularity']} · {run['edit']}")
        names = {"results": "results.json", "attribution map": "attribution.png"}
        names |= {"before and after": "before_after.png", "edit": "edit.safetensors"}
    names["report"] = "report.html"
    places = {what: folder / name for what, name in names.items() if (folder / name).exists()}
    show_places({"run folder": folder, **places})
    show_verdict(run.get("verdict") or {})


def show_verdict(sentences: dict[str, str]) -> None:
    """May the scores be trusted, and what did the edit do: a sentence each, if there is one."""
    told = {what: sentence for what, sentence in sentences.items() if sentence}
    screen, width = console(), max(map(len, told), default=0)
    for position, (what, sentence) in enumerate(told.items()):
        if not position:
            screen.print()
        screen.print(f"[bold]{escape(what):<{width}}[/]  {escape(sentence)}", soft_wrap=True)


def say_left_out(content: dict[str, Any]) -> None:
    """Of a finished run, what could not be drawn when it was made, if anything."""
    if left_out := content["run"].get("left_out"):
        missing = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        again = "delete results.json and give the same command again, its stages come from the cache"
        say(f"  not drawn then: {missing}; {again}", style="yellow")
