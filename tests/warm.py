"""Commands in processes of their own that start at once: forks of a process that has imported the libraries already.

A fork has its own pid, streams, folder, environment and signals, as a new process has; only the imports are shared.
Where a test looks at the start itself (what is imported, a module that is missing), it starts a new interpreter.
"""

import array
import atexit
import gc
import importlib
import json
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pictures import undrawn

ROOT = Path(__file__).resolve().parents[1]
LIGHT = ("cad_exp.cli.job", "cad_exp.cli.run", "cad_exp.cli.tables", "cad_exp.pipeline.identity", "hydra.main")
TORCH = (
    "cad_exp.pipeline.run",
    "cad_exp.pipeline.run_attribute",
    "cad_exp.evaluation.judges",
    "diffusers",
    "matplotlib.pyplot",
    "scipy.stats",
)
# What a run imports when it first needs it.
TORCH += (
    "cad_exp.mini.judge",
    "cad_exp.config.grammar",
    "cad_exp.interventions.selection",
    "cad_exp.models.state_dicts",
)
TORCH += ("cad_exp.reporting.figures.attribution", "cad_exp.reporting.figures.before_after", "pyarrow.parquet")
LIBRARIES = {"light": LIGHT, "torch": LIGHT + TORCH}
_addresses: dict[str, str] = {}


def hasten() -> None:
    """Read the package's configs once, and compose them once for a command: Hydra does both again and again.

    It composes for the first time only to know hydra.mode, which no config of the package sets. For every option it
    collects what ${...} in a list of defaults may name, also where there is none.
    """
    import yaml
    from hydra._internal import defaults_list
    from hydra._internal.hydra import Hydra

    from cad_exp.config.options import conf_folder

    read, mode, collect, known = yaml.load, Hydra.get_mode, defaults_list._create_interpolation_map, {}

    def load(stream: Any, Loader: Any) -> Any:
        name = str(getattr(stream, "name", ""))
        if not name.startswith(str(conf_folder())) and "hydra/conf" not in name:
            return read(stream, Loader=Loader)
        if name not in known:
            known[name] = pickle.dumps(read(stream, Loader=Loader))
        return pickle.loads(known[name])  # several times faster than a deep copy

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        return mode(self, config_name, overrides) if any("hydra" in item for item in overrides) else None

    def choices(overrides: Any, items: list[Any], self_added: bool) -> Any:
        named = any(getattr(item, "value", None) and "${" in str(item.value) for item in items)
        return collect(overrides, items, self_added) if named else None

    yaml.load, Hydra.get_mode, defaults_list._create_interpolation_map = load, get_mode, choices


def start(
    arguments: list[str], libraries: str = "light", code: str | None = None, pictures: bool = True, **settings: Any
):
    """A Popen of `python -m cad_exp ARGUMENTS`, or of `python -c CODE ARGUMENTS`.

    libraries: a key of LIBRARIES. pictures: whether a run draws them; a test that looks at none can do without.
    A sitecustomize.py in a folder of PYTHONPATH is run, as Python would.
    """
    if sys.platform != "linux":
        module = ["-m", "cad_exp"] if code is None else ["-c", code]
        return subprocess.Popen([sys.executable, *module, *arguments], **settings)
    return _Fork(arguments, libraries, code, pictures, settings)


def run(arguments: list[str], timeout: float = 60, **settings: Any) -> subprocess.CompletedProcess:
    """As subprocess.run: wait for the command, and end it when it takes too long."""
    with start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class _Fork(subprocess.Popen):
    """A Popen whose process another one has forked, and which that one waits for."""

    def __init__(
        self, arguments: list[str], libraries: str, code: str | None, pictures: bool, settings: dict[str, Any]
    ):
        self.libraries, self.code, self.pictures = libraries, code, pictures
        super().__init__(["python", *arguments], **settings)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, info, flags, shell,
                       p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, signals, gid, gids, uid, umask,
                       start_new_session, *rest) -> None:  # fmt: skip
        request = {"arguments": args[1:], "code": self.code, "cwd": os.fspath(cwd or os.getcwd()),
                   "env": dict(env or os.environ), "session": start_new_session, "pictures": self.pictures}  # fmt: skip
        with open(os.devnull, "r+b") as nothing:
            given = zip((p2cread, c2pwrite, errwrite), (nothing.fileno(), 1, 2), strict=True)
            streams = [stream if stream != -1 else other for stream, other in given]
            self.line = socket.socket(socket.AF_UNIX)
            self.line.connect(_address(self.libraries))
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))
            self.line.sendmsg([b"x"], [rights])
            self.line.sendall(json.dumps(request).encode() + b"\n")
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self.pid = int(self.line.recv(20))
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags and not select.select([self.line], [], [], 0)[0]:
            return 0, 0
        told = self.line.recv(20)
        self.line.close()
        return self.pid, int(told)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and (done := self._try_wait(1))[0]:
            self._handle_exitstatus(done[1])
        return self.returncode


def _address(libraries: str) -> str:
    """Where the process that forks listens; it is started when it is first needed and ends with this one."""
    if libraries not in _addresses:
        address = f"\0cad_exp-tests-{os.getpid()}-{libraries}"
        with socket.socket(socket.AF_UNIX) as ready:
            ready.bind(f"{address}-ready")
            ready.listen()
            command = [sys.executable, "-m", "tests.warm", libraries, address[1:]]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE)
            ready.settimeout(120)
            ready.accept()[0].close()
        _addresses[libraries] = address
        atexit.register(process.wait)
        atexit.register(process.kill)
    return _addresses[libraries]


# ------------------------------------------------------------------------------------- in the process that forks


def serve(libraries: str, address: str) -> None:
    """Fork for every request; returns in the forked process only, whose work then begins."""
    import hydra

    from cad_exp.config.options import conf_folder
    from cad_exp.pipeline.identity import own_modules
    from cad_exp.pipeline.keys import code_version
    from tests import valid_results

    for name in LIBRARIES[libraries]:
        importlib.import_module(name)
    hasten()
    valid_results.demand()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        hydra.compose("config")
    code_version("cad_exp.pipeline.run_attribute", *own_modules())  # a run hashes the code of the package
    gc.collect()
    gc.freeze()  # a fork that looks through what was imported would copy every page of it
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{address}")
    listening.listen()
    with socket.socket(socket.AF_UNIX) as ready:
        ready.connect(f"\0{address}-ready")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the waiting processes end
    while listening in select.select([listening, sys.stdin], [], [])[0]:  # else nobody holds its other end any more
        line, _ = listening.accept()
        if not os.fork():
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _handle(line)
        line.close()
    os._exit(0)


def _handle(line: socket.socket) -> None:
    """Fork the command itself, wait for it and tell how it ended."""
    _, rights, _, _ = line.recvmsg(1, socket.CMSG_SPACE(3 * 4))
    streams = list(array.array("i", rights[0][2]))
    request = json.loads(line.makefile().readline())
    if pid := os.fork():
        line.sendall(str(pid).encode())
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(pid, 0)
        line.sendall(str(status).encode())
        os._exit(0)
    line.close()
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, "w" if number else "r", 1, "utf-8", "backslashreplace", closefd=False) for number in range(3)
    )  # a line at a time, as on a terminal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    _work(request)


def _work(request: dict[str, Any]) -> None:
    """What Python does at its start, and then the command."""
    atexit.register(gc.unfreeze)  # or libraries complain on stderr of what is left
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:0] = [os.getcwd(), *(folder for folder in folders if folder not in sys.path)]
    for folder in folders:
        if (start := Path(folder) / "sitecustomize.py").exists():
            runpy.run_path(str(start))
    sys.argv[1:] = request["arguments"]
    with undrawn(not request["pictures"]):
        _begin(request)


def _begin(request: dict[str, Any]) -> None:
    if request["code"] is not None:
        sys.argv[0] = "-c"
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module("cad_exp", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
