"""`python -m tests.fuzzing`: run the cases, say what is wrong with the answers, exit 1 for what must not be."""

import argparse
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tests.fuzzing import files, overrides, shell
from tests.fuzzing.command import call, stubbed
from tests.fuzzing.overrides import Case
from tests.fuzzing.sandbox import Sandbox
from tests.fuzzing.verdict import STRICT, Finding, judge, printed_commands
from tests.warm import hasten

LIMIT, REAL_LIMIT = 20.0, 120.0  # seconds for one command; for one that loads torch


def run(case: Case, folder: Path) -> tuple[list[Finding], str]:
    """All findings of a case in a fresh sandbox, and the end of what the command said."""
    sandbox = Sandbox(folder, case.folder)
    if case.setup is not None:
        case = replace(case, arguments=(*case.arguments, *case.setup(sandbox)))
    sandbox.remember()
    light = "torch" not in sys.modules and not case.real and case.module != "cad_exp memory"
    limit = REAL_LIMIT if case.real or case.module == "cad_exp memory" else LIMIT
    with nullcontext() if case.real else stubbed():
        if case.kind == "shell":
            answer = shell.run(case, sandbox, limit)
        else:
            answer = call(case.module, list(case.arguments), sandbox.work, sandbox.home, limit)
        found = judge(answer, " ".join(case.arguments))
        if case.kind == "folder":
            found += _again(case, sandbox, printed_commands(answer), limit)
    if touched := sandbox.touched():
        found.append(Finding("foreign", ", ".join(touched[:4])))
    if not case.own and (strewn := sandbox.strewn()):
        found.append(Finding("strewn", ", ".join(strewn[:4])))
    if case.kind == "images" and answer.code == 1 and "noisy latents:" in answer.out:
        found.append(Finding("late", "a file is refused only after the work has begun"))
    if light and "torch" in sys.modules:
        found.append(Finding("late", "torch was loaded before the first thing that needs it"))
    if (sandbox.work / "given" / "ran").exists():
        found.append(Finding("ran", "code of a file was run"))
    if case.refused and answer.code == 0:
        found.append(Finding("accepted", "exit 0"))
    if case.kind in ("taken", "results") and answer.code != 0 and not answer.late:
        found.append(Finding("refused", answer.err.strip()))
    return found, (answer.err.strip() or answer.out.strip())[-300:]


def _again(case: Case, sandbox: Sandbox, commands: list[list[str]], limit: float) -> Iterator[Finding]:
    """Run what was printed: it may fail as it did before, but not for how it is written."""
    for words in commands[:3]:
        if words[:2] != ["python", "-m"]:
            yield Finding("repeat", f"no shell takes this: {words}")
            continue
        answer = call(words[2], words[3:], sandbox.work, sandbox.home, limit)
        missing = "there is no folder" in answer.err or (words[3:4] != ["tables"] and "bad luck" not in answer.err)
        if answer.code not in (0, 1) or missing or answer.fault:
            yield Finding("repeat", f"{shlex.join(words)} -> {answer.code} {answer.err.strip()[:150]}")


def _told(case: Case) -> str:
    command = shlex.join(["python", "-m", case.module, *case.arguments])
    where = f"  [in {case.folder!r}]" if case.folder != "project" else ""
    return f"{command if len(command) < 240 else command[:200] + '...' + command[-30:]}{where} {case.note}".rstrip()


def everything(cases: Iterable[Case], verbose: bool) -> list[tuple[Case, Finding]]:
    """The findings of all cases, told as they come."""
    found = []
    for number, case in enumerate(cases):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            findings, said = run(case, Path(folder) / "root")
        for finding in findings:
            found.append((case, finding))
            mark = "FAIL" if finding.what in STRICT else "note"
            print(f"{mark} {finding.what:<10} {case.kind:<8} {_told(case)!r}")
            print(f"       {finding.shown[:300]!r}", flush=True)
        if verbose:
            print(f"     {number} {time.perf_counter() - start:.1f} s {_told(case)!r} -> {said!r}", flush=True)
    return found


def _chosen(cases: Iterable[Case], given: argparse.Namespace) -> list[Case]:
    """The cases that --kind, --only and --part leave."""
    first, step = map(int, given.part.split("/"))
    kept = [case for case in cases if given.kind in (None, case.kind) and given.only in (None, case.note)]
    return kept[first::step]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--overrides", type=int, default=500)
    parser.add_argument("--files", type=int, default=90)
    parser.add_argument("--only", help="only the file or script of this name")
    parser.add_argument("--shell", type=int, default=len(shell.SCRIPTS), help="scripts in processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="only every n-th case: 0/2 and 1/2 side by side")
    parser.add_argument("--kind", help="only cases of this kind, or files of this class")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(arguments)
    hasten()
    wanted = _chosen(overrides.generate(given.overrides, given.seed), given)
    hostile = _chosen(files.generate(given.files, given.seed), given)
    scripts = _chosen(shell.generate(given.shell), given)
    found = everything([*wanted, *hostile, *scripts], given.verbose)
    counts = Counter((case.kind, finding.what) for case, finding in found)
    failing = sum(finding.what in STRICT for _, finding in found)
    for (kind, what), number in sorted(counts.items()):
        print(f"{kind:<10} {what:<12} {number}")
    sizes = f"{len(wanted)} overrides, {len(hostile)} files, {len(scripts)} scripts"
    print(f"{sizes}: {failing} findings that must not be, {len(found)} in all")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
