"""How every command starts and ends: Ctrl-C, SIGTERM, a reader that closes the pipe, an output that is full.

Until the work begins, a signal ends the process at once, because there is nothing to clean up and an exception could
be lost in somebody's import. From then on it is an exception, so that locks are released and drafts removed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cad_exp.utils import distributed
from cad_exp.utils.errors import UserError
from cad_exp.utils.io import FULL, silence

FAILED, MISUSED = 1, 2  # exit codes
INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number, as of a shell
SENTENCES = {
    INTERRUPTED: "stopped; the same command continues where it was",
    TERMINATED: "stopped from outside (SIGTERM); the same command continues where it was",
}
_SIGNALS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Stopped(KeyboardInterrupt):
    """The person or the system ends this process. code: INTERRUPTED or TERMINATED."""

    def __init__(self, code: int):
        super().__init__(SENTENCES[code])
        self.code = code


_begun = False


def begin() -> None:
    """Say that the work begins: signals are exceptions from here on."""
    global _begun
    _begun = True


def code_of(error: KeyboardInterrupt) -> int:
    """Exit code of a stop; a plain KeyboardInterrupt is a Ctrl-C."""
    return error.code if isinstance(error, Stopped) else INTERRUPTED


def run(main: Callable[[], int]) -> int:
    """Call a command and return its exit code, or that of the signal which stopped it, said in one sentence."""
    _open_streams()
    if wrong := _surroundings():
        _say(wrong)
        return MISUSED
    with _watched():
        try:
            try:
                return main()
            finally:
                sys.stdout.flush()  # what is wrong with it is met here, and not while the interpreter ends
        except BrokenPipeError:  # `--help | head`: the reader has seen enough
            silence(sys.stdout)
            return 0
        except OSError as error:
            if error.errno not in FULL or error.filename is not None:
                raise
            silence(sys.stdout)  # what is left of it would be tried again while the interpreter ends
            _say(f"what is printed cannot be written ({error.strerror}): make room")
            return FAILED
        except KeyboardInterrupt as error:
            _tell(code_of(error))
            return code_of(error)


def _surroundings() -> str | None:
    """Return what is wrong with the environment that every command needs."""
    try:
        distributed.rank()
        os.getcwd()
    except UserError as error:
        return str(error)
    except FileNotFoundError:
        return "the current folder is gone: change to one that is there"
    return None


def _open_streams() -> None:
    """Give a stream that the caller has closed (`>&-`) a place where everything vanishes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


@contextmanager
def _watched() -> Iterator[None]:
    """Signals are ours for the block, where they can be: in the main thread, and unless the caller ignores them."""
    global _begun
    _begun, ours = False, {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # torchrun ends its processes by SIGTERM, also one that waits in a collective: that must not be delayed
            shared = number == signal.SIGTERM and distributed.size() > 1
            if signal.getsignal(number) != signal.SIG_IGN and not shared:
                ours[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)


def _stop(number: int, frame: Any) -> None:
    global _begun
    code = _SIGNALS[signal.Signals(number)]
    if not _begun:
        _tell(code)
        os._exit(code)
    _begun = False  # who asks twice does not want to wait
    raise Stopped(code)


def _tell(code: int) -> None:
    """Say what stopped the command; of several processes the first does."""
    if distributed.main():
        _say(SENTENCES[code])


def _say(sentence: str) -> None:
    """Write an error to stderr, by the system's own call: this is also a signal's handler."""
    with suppress(OSError):  # a closed stderr has nobody to read it
        os.write(2, f"error: {sentence}\n".encode())
