"""What a person sees while a run works and when it is done; in a log file too, where nothing can be redrawn."""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cad_exp import entry, parallel, text

Tick = Callable[[int, int], None]
ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
PATIENCE = 2.0  # seconds before progress is worth a line
LOG_EVERY = 10.0  # seconds between the lines of a log file
VARIANTS = ("unedited", "edited", "random")
LABELS = {
    "concept_rate": "concept rate",
    "retention_mean": "retention, mean",
    "retention_worst": "retention, worst",
    "drawn": "drawn instead",
    "blank_images": "blank images",
    "outside_world": "outside the world",
    "blank_images_others": "blank, others",
    "outside_world_others": "outside, others",
    "style_distance": "style, distance",
    "style_distance_others": "other styles, distance",
    "nudity_detections": "exposed parts found",
    "fid": "FID",
    "fid_to_unedited": "FID to unedited",
    "kid": "KID",
    "kid_to_unedited": "KID to unedited",
    "clip_score": "CLIP score",
    "perceptual_distance": "distance, others",
    "perceptual_distance_worst": "distance, worst",
    "perceptual_distance_other_seed": "distance, other seed",
}
UNITS = {"weight": "weights", "neuron": "neurons", "head": "attention heads", "layer": "whole layers"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: who closed the pipe has seen enough, and a run's results are in its folder."""
        entry.silence(self.file)


def console(stderr: bool = False) -> Console:
    """A console on the stream of this moment (tests and notebooks replace it); a log file gets 110 columns.

    The stream is told to show a stand-in for what it cannot encode (`text.prepare`).
    """
    text.prepare(sys.stderr if stderr else sys.stdout)
    made = _Console(stderr=stderr, highlight=False, emoji=False, quiet=not stderr and not parallel.main())
    if made.is_terminal or made.quiet:
        return made
    return _Console(stderr=stderr, highlight=False, emoji=False, width=110, soft_wrap=True)


def clean(said: Any) -> str:
    """Text from users and files as the terminal can show it: no control characters, and ASCII where it must be.

    To be printed without markup, or through `escape`.
    """
    shown = text.safe(said)
    return text.ascii_only(shown) if text.wants_ascii(sys.stdout) else shown


def say(said: str, style: str | None = None, stderr: bool = False) -> None:
    """One plain line; square brackets are text, not markup."""
    console(stderr).print(clean(said), style=style, markup=False, soft_wrap=True)


def page(said: str, end: str = "\n") -> None:
    """Text of many lines as it is, for people or for a pipe; only control characters are written out."""
    text.prepare(sys.stdout)
    print(clean(said), end=end)


def stage(name: str) -> None:
    """Announce what is being done now."""
    console().print(Text.assemble((_glyph("▸", ">"), "bold cyan"), f" {clean(name)}"), soft_wrap=True)


def error(said: str) -> None:
    """One message for a person, in red, on stderr."""
    process = "" if parallel.main() else f"process {parallel.rank()}: "
    console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {process}{clean(said)}"), soft_wrap=True)


@contextmanager
def harmless(
    what: str, failed: Callable[[str], None] | None = None, passes: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Around what only shows a result: if it cannot be made, a yellow line names it and the reason, and no more.

    failed: is called with the reason. passes: errors that are not about showing, and go on.
    """
    try:
        yield
    except passes:
        raise
    except Exception as error:
        words = text.line(str(error)) or "no reason given"
        reason = words[:200] if isinstance(error, OSError) else f"{type(error).__name__}: {words[:200]}"
        with suppress(Exception):  # the terminal itself may be what fails
            say(f"  {what} is left out: it cannot be made ({reason})", style="yellow", stderr=True)
        if failed:
            failed(reason)


@contextmanager
def progress(total: int, description: str) -> Iterator[Tick]:
    """Yield a callable (done, total) that shows a bar with ETA (in a log: a line every ten seconds).

    Work of less than two seconds shows nothing. `total` may be a guess: the total of each call counts.
    """
    screen = console()
    with _bar(screen, total, description) if screen.is_terminal else _lines(description) as tick:
        yield tick


@contextmanager
def _bar(screen: Console, total: int, description: str) -> Iterator[Tick]:
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    start, bar = time.monotonic(), Progress(*columns, console=screen, transient=True)
    task = bar.add_task(clean(description), total=total)

    def tick(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - start > PATIENCE and done < total:
            bar.start()

    try:
        yield tick
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def _lines(description: str) -> Iterator[Tick]:
    start = time.monotonic()
    said = start + PATIENCE - LOG_EVERY

    def tick(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if 0 < done < total and now - said >= LOG_EVERY:
            said, left = now, (now - start) * (total - done) / done
            say(f"  {description}: {done}/{total}, ETA {duration(left)}")

    yield tick


def duration(seconds: float) -> str:
    """ "45 s", "3 min 05 s" or "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def quiet_libraries() -> None:
    """No loading bars of diffusers and transformers between our own lines, and of what they repeat one line a run."""
    import diffusers.utils.logging
    import transformers.utils.logging

    _cut.told = False
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.get_logger()  # sets up the handlers
        for handler in logging.getLogger(library.__name__).handlers:
            handler.addFilter(_cut)


class _Cut(logging.Filter):
    """Says once what the libraries say of every prompt: that what the text encoder cannot read is cut off."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if "input was truncated" in said and not self.told:
            self.told = True
            length = re.search(r"(\d+) tokens", said)
            say(f"  prompts of more than {length[1] if length else 'so many'} tokens are cut", style="yellow")
        return "input was truncated" not in said and "Token indices sequence length is longer" not in said


_cut = _Cut()


def number(value: float | None) -> str:
    """Three decimals below 10, one from there on; "-" for nothing."""
    if value is None or value != value:
        return "-"
    return f"{value:z.3f}" if abs(value) < 10 else f"{value:z.1f}"


def metrics_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric, one column per variant and one for the change by the edit; 80 columns hold whole numbers.

    Under each value stands its interval, under the metric's name how many images it is of.
    """
    box = SIMPLE_HEAD if _glyph("─", "-") == "─" else ASCII_HEAD
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
    """A value, marked where it carries a warning, over its interval."""
    if metric is None:
        return number(None)
    mark = "*" if metric.get("definition", {}).get("warning") else ""
    value = escape(number(metric["value"]) + mark)
    if metric["low"] is None:
        return value
    low, high = (re.sub(r"^(-?)0\.", r"\1.", number(metric[end])) for end in ("low", "high"))
    return f"{value}\n[not bold dim]{escape('[' + low)}, {high}][/]"


def warnings_of(metrics: list[dict[str, Any]]) -> list[str]:
    """What the marks of a table mean: one plain sentence for the images of each variant."""
    said: dict[str, list[str]] = {}
    for metric in metrics:
        if warning := metric["definition"].get("warning"):
            name = LABELS.get(metric["name"], metric["name"])
            said.setdefault(f"{metric['variant']}: {warning}", []).append(name)
    return [f"* {warning}, so little can be read from {'; '.join(names)}" for warning, names in said.items()]


def drawn_instead(metrics: list[dict[str, Any]], most: int = 4) -> str:
    """What the edited model draws where it was asked for the concept: "garbage truck 45 %, gas pump 20 %"; or ""."""
    found = {
        metric["name"].removeprefix("drawn@"): metric["value"]
        for metric in metrics
        if metric["name"].startswith("drawn@") and metric["variant"] == "edited" and metric["value"]
    }
    order = sorted(found, key=found.__getitem__, reverse=True)
    parts = [f"{name} {100 * found[name]:.0f} %" for name in order[:most]]
    if len(order) > most:
        parts.append(f"others {100 * sum(found[name] for name in order[most:]):.0f} %")
    return ", ".join(parts)


def scores_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric of the scores themselves: value [low, high] and n."""
    table = Table(title=escape(clean(title)) or None, title_justify="left", header_style="bold")
    table.add_column("metric", no_wrap=True)
    for column in ("value", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for metric in metrics:
        table.add_row(_label(metric), _cell(metric), str(metric["n"]))
    return table


def _label(metric: dict[str, Any]) -> str:
    name, wanted = metric["name"], metric["higher_is_better"]
    arrow = "" if wanted is None else " " + (_glyph("↑", "(higher)") if wanted else _glyph("↓", "(lower)"))
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
        screen.print(scores_table(scores, "How far the scores can be trusted (docs/fidelity.md)"))
    everything = metrics
    # Further thresholds and single labels (name@which) are for results.json and its tables.
    if metrics := [metric for metric in metrics if metric["variant"] != "attribution" and "@" not in metric["name"]]:
        screen.print()
        screen.print(metrics_table(metrics, title))
        for line in _reading(metrics, everything):
            screen.print(escape(line), style="yellow" if line.startswith("*") else "dim", soft_wrap=True)


def _reading(shown: list[dict[str, Any]], everything: list[dict[str, Any]]) -> list[str]:
    """The lines below the table of the images."""
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
    """The table of a finished run (what its results.json holds), where everything lies, and last the verdict."""
    run = content["run"]
    show_metrics(content["metrics"], f"{run['concept']} · {run['granularity']} · {run['edit']}")
    names = {"results": "results.json", "attribution map": "attribution.png", "before and after": "before_after.png"}
    names |= {"edit": "edit.safetensors"}
    places = {what: folder / name for what, name in names.items() if (folder / name).exists()}
    show_places({"run folder": folder, **places})
    show_verdict(run.get("verdict") or {})


def show_verdict(sentences: dict[str, str]) -> None:
    """May the scores be trusted, and what did the edit do: a sentence each, if there is one."""
    told = {what: sentence for what, sentence in sentences.items() if sentence}
    screen, width = console(), max(map(len, told), default=0)
    for number, (what, sentence) in enumerate(told.items()):
        if not number:
            screen.print()
        screen.print(f"[bold]{escape(what):<{width}}[/]  {escape(sentence)}", soft_wrap=True)


def say_left_out(content: dict[str, Any]) -> None:
    """Of a finished run, what could not be drawn when it was made, if anything."""
    if left_out := content["run"].get("left_out"):
        missing = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        again = "delete results.json and give the same command again, its stages come from the cache"
        say(f"  not drawn then: {missing}; {again}", style="yellow")


def _glyph(pretty: str, plain: str) -> str:
    """The pretty sign where the stream can encode it."""
    try:
        pretty.encode(console().encoding)
        return pretty
    except (UnicodeEncodeError, LookupError):
        return plain
