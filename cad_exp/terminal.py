"""What a person sees while a run works and when it is done; in a log file too, where nothing can be redrawn."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cad_exp import entry, parallel

Tick = Callable[[int, int], None]
PATIENCE = 2.0  # seconds before progress is worth a line
LOG_EVERY = 10.0  # seconds between the lines of a log file
VARIANTS = ("unedited", "edited", "random")
LABELS = {
    "concept_rate": "concept rate",
    "retention_mean": "retention, mean",
    "retention_worst": "retention, worst",
    "style_distance": "style, distance",
    "style_distance_others": "other styles, distance",
    "nudity_detections": "exposed parts found",
    "fid": "FID",
    "fid_to_unedited": "FID to unedited",
    "kid": "KID",
    "kid_to_unedited": "KID to unedited",
    "clip_score": "CLIP score",
    "perceptual_distance": "perceptual distance",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: who closed the pipe has seen enough, and a run's results are in its folder."""
        entry.silence(self.file)


def console(stderr: bool = False) -> Console:
    """A console on the stream of this moment (tests and notebooks replace it); a log file gets 110 columns."""
    made = _Console(stderr=stderr, highlight=False, quiet=not stderr and not parallel.main())
    if made.is_terminal or made.quiet:
        return made
    return _Console(stderr=stderr, highlight=False, width=110, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """One plain line; square brackets are text, not markup."""
    console().print(escape(text), style=style, soft_wrap=True)


def stage(name: str) -> None:
    """Announce what is being done now."""
    console().print(f"[bold cyan]{_glyph('▸', '>')}[/] {escape(name)}", soft_wrap=True)


def error(text: str) -> None:
    """One message for a person, in red, on stderr."""
    process = "" if parallel.main() else f"process {parallel.rank()}: "
    console(stderr=True).print(f"[bold red]error:[/] {process}{escape(text)}", soft_wrap=True)


@contextmanager
def progress(total: int, description: str) -> Iterator[Tick]:
    """Yield a callable (done, total) that shows a bar with ETA (in a log: a line every ten seconds).

    Work of less than two seconds shows nothing. `total` may be a guess: the total of each call counts.
    """
    screen = console()
    with _bar(screen, total, description) if screen.is_terminal else _lines(screen, description) as tick:
        yield tick


@contextmanager
def _bar(screen: Console, total: int, description: str) -> Iterator[Tick]:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    start, bar = time.monotonic(), Progress(*columns, console=screen, transient=True)
    task = bar.add_task(escape(description), total=total)

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
def _lines(screen: Console, description: str) -> Iterator[Tick]:
    start = time.monotonic()
    said = start + PATIENCE - LOG_EVERY

    def tick(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if 0 < done < total and now - said >= LOG_EVERY:
            said, left = now, (now - start) * (total - done) / done
            screen.print(f"  {escape(description)}: {done}/{total}, ETA {duration(left)}", soft_wrap=True)

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
        text = record.getMessage()
        if "input was truncated" in text and not self.told:
            self.told = True
            length = re.search(r"(\d+) tokens", text)
            say(f"  prompts of more than {length[1] if length else 'so many'} tokens are cut", style="yellow")
        return "input was truncated" not in text and "Token indices sequence length is longer" not in text


_cut = _Cut()


def number(value: float | None) -> str:
    """Three decimals below 10, one from there on; "-" for nothing."""
    if value is None or value != value:
        return "-"
    return f"{value:z.3f}" if abs(value) < 10 else f"{value:z.1f}"


def metrics_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric and one column per variant: value [low, high]; the arrow is the direction this run wants."""
    table = Table(title=escape(title) or None, title_justify="left", header_style="bold")
    table.add_column("metric", no_wrap=True)
    for variant in VARIANTS:
        table.add_column(variant, justify="right", no_wrap=True, style="bold" if variant == "edited" else None)
    for name in dict.fromkeys(metric["name"] for metric in metrics):
        cells = {metric["variant"]: metric for metric in metrics if metric["name"] == name}
        label = _label(next(iter(cells.values())))
        table.add_row(label, *(_cell(cells.get(variant)) for variant in VARIANTS))
    return table


def scores_table(metrics: list[dict[str, Any]], title: str = "") -> Table:
    """One row per metric of the scores themselves: value [low, high] and n."""
    table = Table(title=escape(title) or None, title_justify="left", header_style="bold")
    table.add_column("metric", no_wrap=True)
    for column in ("value", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for metric in metrics:
        table.add_row(_label(metric), _cell(metric), str(metric["n"]))
    return table


def _label(metric: dict[str, Any]) -> str:
    name, wanted = metric["name"], metric["higher_is_better"]
    arrow = "" if wanted is None else " " + (_glyph("↑", "(higher)") if wanted else _glyph("↓", "(lower)"))
    return escape(LABELS.get(name, name)) + arrow


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
    # Further thresholds and single labels (name@which) are for results.json and its tables.
    if metrics := [metric for metric in metrics if metric["variant"] != "attribution" and "@" not in metric["name"]]:
        screen.print()
        screen.print(metrics_table(metrics, title))
        note = "value [95 % interval]; the arrow is the direction this run wants; random: a random edit of equal budget"
        screen.print(note.replace("[", "\\["), style="dim", soft_wrap=True)


def show_places(places: dict[str, Path | str]) -> None:
    """Say where everything lies: what it is -> its path, relative to the current folder where it lies below it."""
    screen, width = console(), max(map(len, places), default=0)
    screen.print()
    for what, place in places.items():
        path = Path(place).absolute()
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        screen.print(f"{escape(what):<{width}}  [cyan]{escape(str(shown))}[/]", soft_wrap=True)


def show_run(content: dict[str, Any], folder: Path) -> None:
    """The table of a finished run (what its results.json holds), and where everything lies."""
    run = content["run"]
    show_metrics(content["metrics"], f"{run['concept']} · {run['granularity']} · {run['edit']}")
    names = {"results": "results.json", "attribution map": "attribution.png", "before and after": "before_after.png"}
    names |= {"edit": "edit.safetensors"}
    places = {what: folder / name for what, name in names.items() if (folder / name).exists()}
    show_places({"run folder": folder, **places})


def _glyph(pretty: str, plain: str) -> str:
    """The pretty sign where the stream can encode it."""
    try:
        pretty.encode(console().encoding)
        return pretty
    except (UnicodeEncodeError, LookupError):
        return plain
