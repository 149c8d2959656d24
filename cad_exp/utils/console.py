"""What a person sees while a run works; in a log file too, where nothing can be redrawn."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from cad_exp.utils import distributed, io, text
from cad_exp.utils.errors import reason_of


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: who closed the pipe has seen enough, and a run's results are in its folder."""
        io.silence(self.file)


def console(stderr: bool = False) -> Console:
    """Return a console on the stream of this moment (tests and notebooks replace it); a log file gets 110 columns.

    The stream is told to show a stand-in for what it cannot encode (`text.prepare`).
    """
    text.prepare(sys.stderr if stderr else sys.stdout)
    made = _Console(stderr=stderr, highlight=False, emoji=False, quiet=not stderr and not distributed.main())
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
    console().print(Text.assemble((glyph("▸", ">"), "bold cyan"), f" {clean(name)}"), soft_wrap=True)


def error(said: str) -> None:
    """One message for a person, in red, on stderr."""
    process = "" if distributed.main() else f"process {distributed.rank()}: "
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
        # a run's log has the whole trace, for whoever mends it
        logging.getLogger(__name__).info("%s cannot be made", what, exc_info=True)
        reason = text.line(reason_of(error, 200))
        with suppress(Exception):  # the terminal itself may be what fails
            say(f"  {what} is left out: it cannot be made ({reason})", style="yellow", stderr=True)
        if failed:
            failed(reason)


def duration(seconds: float) -> str:
    """Write "45 s", "3 min 05 s" or "2 h 07 min"."""
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


def glyph(pretty: str, plain: str) -> str:
    """Return the pretty sign where the stream can encode it."""
    try:
        pretty.encode(console().encoding)
        return pretty
    except (UnicodeEncodeError, LookupError):
        return plain
