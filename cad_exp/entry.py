"""How every command starts and ends: Ctrl-C, SIGTERM and a reader that closes the pipe.

Until the work begins, a signal ends the process at once, because there is nothing to clean up and an exception could
be lost in somebody's import. From then on it is an exception, so that locks are released and drafts removed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 and the signal's number, as of a shell
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
    with _watched():
        try:
            code = main()
            sys.stdout.flush()  # a closed pipe is met here, and not while the interpreter ends
            return code
        except BrokenPipeError:  # `--help | head`: the reader has seen enough
            silence(sys.stdout)
            return 0
        except KeyboardInterrupt as error:
            _say(code_of(error))
            return code_of(error)


def silence(stream: Any) -> None:
    """Let whatever is still written to a stream whose reader is gone vanish."""
    target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, stream.fileno())
    os.close(target)


@contextmanager
def _watched() -> Iterator[None]:
    """Signals are ours for the block, where they can be: in the main thread, and unless the caller ignores them."""
    global _begun
    _begun, ours = False, {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # torchrun ends its processes by SIGTERM, also one that waits in a collective: that must not be delayed
            shared = number == signal.SIGTERM and int(os.environ.get("WORLD_SIZE", 1)) > 1
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
        _say(code)
        os._exit(code)
    _begun = False  # who asks twice does not want to wait
    raise Stopped(code)


def _say(code: int) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        try:
            os.write(2, f"error: {SENTENCES[code]}\n".encode())
        except OSError:  # a closed stderr has nobody to read it
            pass
