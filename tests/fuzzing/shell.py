"""What only a process of its own shows: pipes that close, encodings, signals, a current folder that is gone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.fuzzing.command import Answer
from tests.fuzzing.overrides import Case
from tests.fuzzing.sandbox import Sandbox

CAD = f'"{sys.executable}" -m cad_exp'
# With job control, because a shell without it starts background jobs deaf to SIGINT.
INTERRUPTED = "set -m; %s seed=1 & sleep %s; kill -%s $!; wait $!"
# A real run of seconds, in a file system of its own: 6 MiB that fill up, or one that cannot be written.
SMALL = "evaluation=none tracking=disabled edit=erase granularity=layer noisy_latents.samples=2 noisy_latents.steps=2"
SMALL += " model.steps=2 runtime.device=cpu hydra.run.dir=disk/run"
DISK = (
    "unshare -rm true 2>/dev/null || exit 99; unshare -rm bash -c 'mkdir disk; mount -t tmpfs -o size=%s none disk; %s'"
)
READ_ONLY = "mkdir disk/run disk/cache; mount -o remount,ro disk; "
SKIPPED = 99
# name: (script for bash, exit codes that it may have)
SCRIPTS = {
    "help into head": (f"set -o pipefail; {CAD} --help | head -n 1 > /dev/null", (0, 141)),
    "cfg into head": (f"set -o pipefail; {CAD} --cfg job | head -n 1 > /dev/null", (0, 141)),
    "tables help into head": (f"set -o pipefail; {CAD} tables --help | head -n 1 > /dev/null", (0, 141)),
    "help into a full disk": (f"{CAD} --help > /dev/full", (1, 2)),
    "help without stdout": (f"{CAD} --help >&-", (0, 1)),
    "error without stderr": (f"{CAD} concept=nudty 2>&-", (2,)),
    "ascii help": (f"PYTHONIOENCODING=ascii {CAD} --help > /dev/null", (0,)),
    "ascii error": (f"PYTHONIOENCODING=ascii {CAD} concept=café", (2,)),
    "ascii tables": (f"PYTHONIOENCODING=ascii {CAD} tables café", (1,)),
    "C locale": (f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {CAD} concept=é", (2,)),
    "narrow": (f"COLUMNS=20 {CAD} concept=nudty", (2,)),
    "no home": (f"""env -u HOME {CAD} "noisy_latents.images='~nobody_here/x'" concept=nudty""", (2,)),
    "folder is gone": (f"mkdir gone && cd gone && rmdir ../gone && {CAD} concept=nudty", (1, 2)),
    "folder is gone, sweep": (f"mkdir gone && cd gone && rmdir ../gone && {CAD} -m concept=nudty,church", (1, 2)),
    "prompts folder is a file": (f"CAD_EXP_PROMPTS=notes.txt {CAD} prompts=i2p tracking=disabled", (1,)),
    "world size": (f"WORLD_SIZE=x {CAD} concept=nudty", (1, 2)),
    "disk is full in the run folder": (DISK % ("60k", f"{CAD} {SMALL} runtime.cache=cache"), (1,)),
    "disk is full in the cache": (DISK % ("60k", f"{CAD} {SMALL} hydra.run.dir=run runtime.cache=disk/cache"), (1,)),
    "run folder is read-only": (DISK % ("1m", f"{READ_ONLY}{CAD} {SMALL} runtime.cache=cache"), (1, 2)),
    "cache is read-only": (
        DISK % ("1m", f"{READ_ONLY}{CAD} {SMALL} hydra.run.dir=run runtime.cache=disk/cache"),
        (0, 1),
    ),
    "Ctrl-C at 0.3 s": (INTERRUPTED % (CAD, 0.3, "INT"), (130,)),
    "Ctrl-C at 1 s": (INTERRUPTED % (CAD, 1, "INT"), (130,)),
    "Ctrl-C at 2.5 s": (INTERRUPTED % (CAD, 2.5, "INT"), (130,)),
    "SIGTERM at 2.5 s": (INTERRUPTED % (CAD, 2.5, "TERM"), (143,)),
    "version": (f"{CAD} --version | grep -i cad", (0,)),
    "two config folders": (f"{CAD} --config-dir thesis --config-dir data --cfg job > /dev/null", (0,)),
    "cfg of a sweep": (f"{CAD} --cfg job -m concept=church,tench > /dev/null", (0, 1, 2)),
}


def run(case: Case, sandbox: Sandbox, limit: float) -> Answer:
    """Run a script of SCRIPTS by bash, with SIGINT as a terminal's commands have it."""
    script, allowed = SCRIPTS[case.note]
    root = str(Path(__file__).resolve().parents[2])
    settings = {"HOME": str(sandbox.home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    start = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp('bash', sys.argv[1:])"
    command = [sys.executable, "-c", start, "bash", "-c", script]
    try:
        done = subprocess.run(
            command, cwd=sandbox.work, env={**os.environ, **settings}, capture_output=True, timeout=4 * limit
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", "", late=True)
    # Job control's own notices, and the shell's word for a folder that is gone.
    shell = ("[1]", "bash: ", "shell-init:", "chdir:", "job-working-directory:")
    out, err = (
        "\n".join(line for line in text.decode(errors="replace").splitlines() if not line.startswith(shell))
        for text in (done.stdout, done.stderr)
    )
    if done.returncode == SKIPPED:  # a machine that gives nobody a file system of his own
        return Answer(0, "", "")
    if done.returncode in allowed:
        heard = done.returncode != 141 and "2>&-" not in script
        return Answer(done.returncode if heard else 0, out, err)
    return Answer(done.returncode, out, err, f"exit {done.returncode}, not one of {allowed}: {err[-300:]}")


def generate(number: int) -> Iterator[Case]:
    """The first so many of SCRIPTS."""
    for name in list(SCRIPTS)[:number]:
        yield Case("shell", (), own=True, note=name)
