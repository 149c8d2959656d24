"""How far the work is: a bar with an estimate of the time left; in a log file a line every ten seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cad_exp.utils.console import clean, console, duration, say

Tick = Callable[[int, int], None]
PATIENCE = 2.0  # seconds before progress is worth a line
LOG_EVERY = 10.0  # seconds between the lines of a log file


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
