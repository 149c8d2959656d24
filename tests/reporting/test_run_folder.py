"""The folder of a run: nothing of a person is touched, what is old goes when the new is complete, damage is noticed.

The command line is real; `experiment.run` is replaced by one that needs no torch and writes what the settings ask for.
"""

import ctypes
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import cad_exp
from cad_exp.__main__ import main
from cad_exp.cli import job
from cad_exp.pipeline import identity as identities
from cad_exp.pipeline.identity import run_identity
from cad_exp.reporting.results import Results, harm, load_results, signed
from cad_exp.reporting.run_folder import MARK, Refused, alone, attempt, check, held, publish
from cad_exp.reporting.schema import FIELDS
from cad_exp.utils import gpu_lock, hashing
from cad_exp.utils.errors import UserError
from tests import warm

ROOT = Path(cad_exp.__file__).resolve().parents[1]
SETTINGS = ["tracking=disabled", "edit=erase"]
PRETENDED = (
    "import sys; from tests.reporting.test_run_folder import main, pretend; pretend(); sys.exit(main(sys.argv[1:]))"
)


def fake_run(config: dict, graph: object, folder: Path) -> None:
    """Stands for `run.execute`: the same frame, files of random content."""
    with attempt(folder) as work:
        facts = {"identity": run_identity(config), "config": config, "concept": "c", "granularity": "g", "edit": "e"}
        results = Results(work, facts, lambda: publish(work))
        (work / "edit.safetensors").write_bytes(b"edit" * 100)
        (work / "images" / "edited").mkdir(parents=True)
        for number in range(2 if os.environ.get("FEWER") else 3):
            (work / "images" / "edited" / f"{number}.png").write_bytes(os.urandom(50))
        if os.environ.get("FAIL") == "error":
            raise UserError("no luck today")
        if os.environ.get("FAIL") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        known = {"name": "m", "variant": "edited", "value": 0.5, "low": 0.1, "high": 0.9, "n": 4}
        results.add({field: known.get(field, {} if field in ("definition", "changes") else None) for field in FIELDS})
        results.finish()
    print("worked")


def pretend() -> None:
    """Put `fake_run` in the place of the real one, which needs torch."""
    module = types.ModuleType("cad_exp.pipeline.run")
    module.execute = fake_run
    sys.modules["cad_exp.pipeline.run"] = module
    gpu_lock.own = lambda device: nullcontext()


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setitem(sys.modules, "cad_exp.pipeline.run", None)
    monkeypatch.setattr(gpu_lock, "own", gpu_lock.own)
    monkeypatch.setattr(sys, "argv", ["cad_exp"])
    monkeypatch.setattr(job.Sweep, "folder", None)
    monkeypatch.setattr(identities, "run_name", identities.run_name)
    pretend()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def cad(place: Path, *arguments: str, **environment: str) -> SimpleNamespace:
    """The command line in this process."""
    hashing._file_digest.cache_clear()  # as a new process would have it
    job.Sweep.folder = None
    said, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(errors):
        for key, value in environment.items():
            patch.setenv(key, value)
        try:
            code = main([*SETTINGS, f"runtime.cache={place / 'cache'}", *arguments])
        except SystemExit as stopped:
            code = stopped.code
    return SimpleNamespace(returncode=code, stdout=said.getvalue(), stderr=errors.getvalue())


def process(place: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """The same in a process of its own, which can be killed."""
    given = [*SETTINGS, f"runtime.cache={place / 'cache'}", *arguments]
    paths = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return warm.start(given, code=PRETENDED, cwd=place / "work", env=paths, **pipes)


def state(folder: Path) -> dict[str, bytes]:
    """Every file and link below a folder, by name, with its content; ours apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path).encode()
        elif path.is_file() and not name.startswith((MARK, "config/")) and name != "error.json":
            found[name] = path.read_bytes()
    return found


def project(folder: Path) -> None:
    for name in (
        ".env",
        ".gitignore",
        ".git/HEAD",
        "images/cat.png",
        "results.json",
        "notes.txt",
        "config/config.yaml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my own {name}")


def test_a_project_is_refused_and_every_byte_stays(place: Path):
    project(place / "work")
    before = {path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file()}
    answer = cad(place, "hydra.run.dir=.")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr
    assert "holds other files ('.env', '.git', '.gitignore', ...)" in answer.stderr and "hydra.run.dir" in answer.stderr
    assert {path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name", [".lock", "run.log", "results.json", "config/config.yaml", "error.json", ".cad_exp-run"]
)
def test_a_single_file_of_a_person_is_enough(place: Path, name: str):
    """Also one of a name that a run writes; a file (not our folder) with our mark's name is no mark."""
    (place / "work" / name).parent.mkdir(exist_ok=True)
    (place / "work" / name).write_text("mine")
    assert cad(place, "hydra.run.dir=.").returncode == 1
    assert [path.read_text() for path in (place / "work").rglob("*") if path.is_file()] == ["mine"]


def test_a_link_to_a_folder_with_files_is_refused(place: Path):
    project(place / "project")
    (place / "work" / "run").symlink_to(place / "project")
    before = state(place / "project")
    assert "holds other files" in cad(place, "hydra.run.dir=run").stderr and state(place / "project") == before


def test_a_finished_run_is_shown_whatever_the_command_is_called(place: Path):
    """The length of the command, the tracker's settings and the name of the folder are no part of a result."""
    first = cad(place, "hydra.run.dir=a")
    assert first.returncode == 0 and "worked" in first.stdout, first.stderr
    before = state(place / "work" / "a")
    for more in (["tracking.project=a_long_name_of_a_project"], ["seed=0", "edit.factor=0.0"], ["tracking=offline"]):
        answer = cad(place, "hydra.run.dir=a", *more)
        assert answer.returncode == 0 and "finished before" in answer.stdout and "worked" not in answer.stdout
    (place / "work" / "a").rename(place / "work" / "another, longer name")
    answer = cad(place, "hydra.run.dir='another, longer name'")
    assert "finished before" in answer.stdout and state(place / "work" / "another, longer name") == before


def test_a_finished_run_needs_neither_torch_nor_a_tracker(place: Path):
    assert cad(place, "hydra.run.dir=a").returncode == 0
    code = (
        "import sys; from cad_exp.__main__ import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or bool({'torch', 'wandb', 'diffusers', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *SETTINGS, "hydra.run.dir=a", f"runtime.cache={place / 'cache'}"]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60).returncode == 0


def flip(path: Path) -> None:
    """One bit, with size and times as they were."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_one_flipped_bit_in_any_promised_file_is_noticed_and_named(place: Path):
    assert cad(place, "hydra.run.dir=a").returncode == 0
    folder = place / "work" / "a"
    promised = load_results(folder)["run"]["files"]
    assert set(promised) == {"edit.safetensors", *(f"images/edited/{n}.png" for n in range(3))}
    assert promised["edit.safetensors"] == hashlib.sha256(b"edit" * 100).hexdigest()
    for name in ("edit.safetensors", "images/edited/1.png"):
        flip(folder / name)
        answer = cad(place, "hydra.run.dir=a")
        assert answer.returncode == 0 and f"{name} is not what was written" in answer.stdout
        assert "worked" in answer.stdout and harm(folder, load_results(folder)) is None
    (folder / "images" / "edited" / "2.png").unlink()
    assert "images/edited/2.png is missing" in cad(place, "hydra.run.dir=a").stdout


@pytest.mark.parametrize(
    "old, new", [("0.5", "0.4"), ('"complete": true', '"complete": false'), ("{", ""), ('"n": 4', '"n": NaN')]
)
def test_a_changed_results_file_is_noticed(place: Path, old: str, new: str):
    assert cad(place, "hydra.run.dir=a").returncode == 0
    file = place / "work" / "a" / "results.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match="results.json"):
        load_results(file.parent)
    answer = cad(place, "hydra.run.dir=a")
    assert answer.returncode == 0 and "results.json" in answer.stdout and "worked" in answer.stdout
    assert load_results(file.parent)["metrics"][0]["value"] == 0.5


def test_other_settings_are_refused_and_erase_nothing(place: Path):
    assert cad(place, "hydra.run.dir=a").returncode == 0
    before = state(place / "work" / "a")
    for harmed in (False, True):  # also where results.json can no longer say what ran
        if harmed:
            (place / "work" / "a" / "results.json").write_text("{")
            before = state(place / "work" / "a")
        answer = cad(place, "hydra.run.dir=a", "edit.ratio=0.25")
        assert answer.returncode == 1 and answer.stderr.count("\n") == 1
        assert "finished run with other settings (edit.ratio was 0.3, now 0.25)" in answer.stderr
        assert state(place / "work" / "a") == before and not (place / "work" / "a" / "error.json").exists()


@pytest.mark.parametrize("how, code", [("error", 1), ("kill", -9)])
def test_a_failing_rerun_costs_nothing_and_the_next_one_replaces_it(place: Path, how: str, code: int):
    assert cad(place, "hydra.run.dir=a").returncode == 0
    folder = place / "work" / "a"
    flip(folder / "images" / "edited" / "1.png")
    (folder / "notes.txt").write_text("my own notes")
    before = state(folder)
    if how == "kill":
        assert process(place, "hydra.run.dir=a", FAIL=how).wait(timeout=60) == code
    else:
        assert cad(place, "hydra.run.dir=a", FAIL=how).returncode == code
    assert state(folder) == before
    answer = cad(place, "hydra.run.dir=a", FEWER="1")
    assert answer.returncode == 0 and "worked" in answer.stdout, answer.stderr
    after = state(folder)
    assert set(after) == set(before) - {"images/edited/2.png"} and after["notes.txt"] == b"my own notes"
    assert harm(folder, load_results(folder)) is None and not (folder / MARK / "work").exists()
    assert not (folder / "error.json").exists()


def test_a_first_run_that_is_killed_is_recognised_and_continued(place: Path):
    assert process(place, "hydra.run.dir=a", FAIL="kill").wait(timeout=60) == -9
    assert json.loads((place / "work" / "a" / "error.json").read_text())["error"] == "it did not finish"
    answer = cad(place, "hydra.run.dir=a", "seed=3")  # nothing was finished, so other settings may have the folder
    assert answer.returncode == 0 and "worked" in answer.stdout, answer.stderr


def test_a_folder_that_another_run_holds_is_waited_for(place: Path):
    with alone(place / "work" / "a"):
        assert held(place / "work" / "a")
        other = process(place, "hydra.run.dir=a")
        assert "another process is at work" in other.stdout.readline()
    assert "worked" in other.communicate(timeout=60)[0] and not held(place / "work" / "a")


def test_a_sweep_notes_its_configs_and_failures(place: Path):
    answer = cad(place, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert answer.returncode == 0, answer.stderr
    found = sorted((place / "work" / "sweep").glob("*/config/overrides.yaml"))
    assert len(found) == 2 and "seed=1" in found[0].read_text() + found[1].read_text()
    assert all((file.parent / name).is_file() for file in found for name in ("config.yaml", "hydra.yaml"))
    assert "finished before" in cad(place, "-m", "seed=1,2", "hydra.sweep.dir=sweep").stdout
    answer = cad(place, "-m", "seed=3,4", "hydra.sweep.dir=other", FAIL="error")
    assert answer.returncode == 1 and "2 of 2 jobs failed" in answer.stderr


def test_a_sweep_overwrites_no_file_of_a_person(place: Path):
    (place / "work" / "multirun.yaml").write_text("mine")
    answer = cad(place, "-m", "seed=1,2", "hydra.sweep.dir=.")
    assert answer.returncode == 1 and "multirun.yaml" in answer.stderr and answer.stderr.count("\n") == 1
    assert [path.name for path in (place / "work").iterdir()] == ["multirun.yaml"]
    assert (place / "work" / "multirun.yaml").read_text() == "mine"


# --------------------------------------------------------------------- folders that cannot be made


@pytest.mark.parametrize(
    "given, said",
    [
        ("file", "it is a file"),
        ("file/run", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("/proc/x", "No such file"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m", "seed=1,2"]])
def test_a_folder_that_cannot_be_made_is_one_sentence(place: Path, given: str, said: str, flags: list[str]):
    (place / "work" / "file").write_text("mine")
    key = "hydra.sweep.dir" if flags else "hydra.run.dir"
    answer = cad(place, *flags, f"{key}={given}")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr
    assert said in answer.stderr and key in answer.stderr and len(answer.stderr) < 300
    assert (place / "work" / "file").read_text() == "mine"


def read_only(place: Path, *arguments: str) -> SimpleNamespace:
    """The command line where nothing below `place`/work can be written, also not by the superuser."""
    folder = place / "work"
    how = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    given = [*SETTINGS, f"runtime.cache={place / 'cache'}", *arguments]
    if os.getuid():
        paths = [folder, *folder.rglob("*")]
        modes = [path.stat().st_mode for path in paths]
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode & ~0o222)
        answer = warm.run(given, code=PRETENDED, **how)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
        return answer
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("the superuser writes anywhere here")
    mounted = "from tests.reporting.test_run_folder import mount_read_only; mount_read_only()"
    return warm.run(given, code=f"{mounted}\n{PRETENDED}", **how)


def mount_read_only() -> None:
    """From now on this process cannot write into its current folder, and sees it as before; others are left alone."""
    folder, new_mounts = os.getcwd(), 0x00020000  # CLONE_NEWNS; os.unshare is there from Python 3.12 on
    assert ctypes.CDLL(None).unshare(new_mounts) == 0
    for given in (["--make-rprivate", "/"], ["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
        subprocess.run(["mount", *given], check=True)
    os.chdir(folder)


def test_a_read_only_folder_is_one_sentence_and_a_finished_run_in_it_is_shown(place: Path):
    (place / "work" / "empty").mkdir()
    for name in ("empty", "absent/below"):
        answer = read_only(place, f"hydra.run.dir={name}")
        assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr
        assert "hydra.run.dir" in answer.stderr and name.partition("/")[0] in answer.stderr
    assert cad(place, "hydra.run.dir=a").returncode == 0
    answer = read_only(place, "hydra.run.dir=a")
    assert answer.returncode == 0 and "finished before" in answer.stdout, answer.stderr
    flip(place / "work" / "a" / "edit.safetensors")
    answer = read_only(place, "hydra.run.dir=a")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr


# --------------------------------------------------------------------- the mechanism itself


def finish(folder: Path, files: dict[str, bytes], identity: str = "a") -> Results:
    with attempt(folder) as work:
        results = Results(work, {"identity": identity}, lambda: publish(work))
        for name, content in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        results.finish()
    return results


def whole(folder: Path) -> bool:
    """Whether the folder holds a complete run with all its files unharmed."""
    content = load_results(folder)
    return content["run"]["complete"] and harm(folder, content) is None


def test_finish_may_be_called_again_for_pictures(tmp_path: Path):
    with attempt(tmp_path) as work:
        results = Results(work, {"identity": "a"}, lambda: publish(work))
        (work / "edit").write_bytes(b"1")
        results.finish()
        assert whole(tmp_path) and list(load_results(tmp_path)["run"]["files"]) == ["edit"]
        (work / "picture.png").write_bytes(b"2")
        results.finish()
        results.finish()
    assert list(load_results(tmp_path)["run"]["files"]) == ["edit", "picture.png"] and whole(tmp_path)


def test_a_picture_that_fails_costs_no_result(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), attempt(tmp_path) as work:
        results = Results(work, {"identity": "a"}, lambda: publish(work))
        (work / "edit").write_bytes(b"1")
        results.finish()
        raise ZeroDivisionError
    assert whole(tmp_path)


def test_a_run_killed_while_it_gives_files_their_places_is_brought_to_its_end(tmp_path: Path, monkeypatch):
    from cad_exp.reporting import run_folder

    finish(tmp_path, {"a": b"1", "b": b"1", "old/c": b"1"}, "first")
    places, replace = [], os.replace

    def killed(source, target):
        if Path(target).parent == tmp_path:
            places.append(target)
            if len(places) > 1:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(run_folder.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path, {"a": b"2", "b": b"2", "new/d": b"2"}, "second")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"2" and (tmp_path / "b").read_bytes() == b"1"
    with run_folder.alone(tmp_path):
        assert whole(tmp_path)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file() and MARK not in p.parts}
    assert names == {"a", "b", "new/d", "results.json"} and not (tmp_path / "old").exists()


def test_a_file_of_a_person_in_the_way_is_never_replaced(tmp_path: Path):
    folder = tmp_path / "run"
    finish(folder, {"a": b"1"})
    (folder / "b").write_bytes(b"mine")
    (folder / "c").mkdir()
    for name in ("b", "c", "b/below"):
        with pytest.raises(UserError, match="not of this run.*move it away"):
            finish(folder, {"a": b"2", name: b"2"})
        assert (folder / "a").read_bytes() == b"1" and (folder / "b").read_bytes() == b"mine" and whole(folder)


def test_links_are_never_followed_out_of_the_folder(tmp_path: Path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    finish(folder, {"a": b"1", "images/x.png": b"1", "single": b"1"})
    (folder / "images").rename(outside)  # the person needs room, and links to it
    (folder / "images").symlink_to(outside)
    (folder / "single").unlink()
    (outside / "single").write_bytes(b"1")
    (folder / "single").symlink_to(outside / "single")
    with pytest.raises(UserError, match="leads out of the run's folder"):
        finish(folder, {"a": b"2", "images/x.png": b"2"})
    finish(folder, {"a": b"3", "single": b"3"})  # images/x.png is old now: what the link leads to stays
    assert (outside / "x.png").read_bytes() == b"1" and (outside / "single").read_bytes() == b"1"
    assert (folder / "single").read_bytes() == b"3" and not (folder / "single").is_symlink()
    shutil.rmtree(folder / MARK / "work", ignore_errors=True)
    (outside / "precious").write_text("mine")
    (folder / MARK / "work").symlink_to(outside)
    finish(folder, {"a": b"4"})
    assert (outside / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    "names", [{"../../evil": ""}, {"/etc/passwd": ""}, {"a/../../b": ""}, {"x" * 300: ""}, {"a": 1}, [1], None]
)
def test_a_manifest_that_lies_removes_and_reads_nothing(tmp_path: Path, names):
    folder = tmp_path / "in" / "run"
    finish(folder, {"a": b"1"})
    (tmp_path / "evil").write_text("mine")
    (tmp_path / "b").write_text("mine")
    (folder / MARK / "published.json").write_text(json.dumps({"files": names}))
    content = load_results(folder)
    content["run"]["files"] = names
    (folder / "results.json").write_text(json.dumps(signed(content)))
    assert harm(folder, content) is not None
    with pytest.raises(UserError, match="results.json' is not of this run|a' is not of this run"):
        finish(folder, {"a": b"2"})
    assert (tmp_path / "evil").read_text() == (tmp_path / "b").read_text() == "mine"


def test_check_is_about_what_lies_there(tmp_path: Path):
    check(tmp_path / "absent")
    check(tmp_path)
    (tmp_path / ".hydra").mkdir()
    check(tmp_path, ignored=".hydra")
    with pytest.raises(Refused):
        check(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / MARK).symlink_to(tmp_path / "target")
    with pytest.raises(Refused):  # a mark is made by a run, in the folder itself
        check(tmp_path / "linked")


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_folder_that_goes_on(place: Path):
    for pause in (0.5, 0.8, 1.0, 1.2, 1.5):
        run = process(place, "hydra.run.dir=a")
        time.sleep(pause)
        run.kill()
        run.wait()
    answer = cad(place, "hydra.run.dir=a")
    assert answer.returncode == 0 and finished_now(place / "work" / "a"), answer.stderr
    assert not [path for path in (place / "work" / "a").glob(".*") if path.name != MARK]


def finished_now(folder: Path) -> bool:
    content = load_results(folder)
    return content["run"]["complete"] and harm(folder, content) is None


@pytest.mark.parametrize("kind", [".md", ".tex", ".csv", ".png"])
def test_a_table_overwrites_no_file_but_an_earlier_table(tmp_path: Path, kind: str):
    from cad_exp.reporting.tables import write

    with write.folder(tmp_path / "new", "mine") as made:
        assert made == tmp_path / "new" and made.is_dir()
    (tmp_path / f"fidelity{kind}").write_text("# My own page")
    with pytest.raises(UserError, match=f"fidelity{kind}' is no table.*--to"):
        write.folder(tmp_path, "fidelity").__enter__()
    (tmp_path / "fidelity.md").write_text(f"# A table\n\n{write.MADE}\n")
    with write.folder(tmp_path, "fidelity") as made:
        assert made == tmp_path


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(28, "No space left on device"), "is full: make room"),
        (type("SafetensorError", (Exception,), {})("I/O error: No space left on device (os error 28)"), "is full"),
        (PermissionError(13, "Permission denied", "x/edit.safetensors"), "'x/edit.safetensors' cannot be written"),
        (OSError(30, "Read-only file system"), "cannot be written (Read-only file system)"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_sentence(place: Path, monkeypatch, error: Exception, said: str):
    def fail(config: dict, graph: object, folder: Path) -> None:
        raise error

    monkeypatch.setattr(sys.modules["cad_exp.pipeline.run"], "execute", fail)
    answer = cad(place, "hydra.run.dir=a")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1 and said in answer.stderr, answer.stderr
    assert said in json.loads((place / "work" / "a" / "error.json").read_text())["error"]


def test_tables_skip_an_attempt_whose_finished_results_are_there(tmp_path: Path):
    from cad_exp.reporting.tables.collect import read_all

    facts = {"config_hash": "h", "config": {}}
    for count, (identity, done) in enumerate([("a", True), ("b", False)]):
        folder = tmp_path / str(count)
        with suppress(ZeroDivisionError), attempt(folder) as work:
            results = Results(work, facts | {"identity": identity}, lambda work=work: publish(work))
            results.finish() if done else None
            raise ZeroDivisionError
    runs, skipped = read_all([tmp_path])
    assert [(run.folder.name, run.complete) for run in runs] == [("0", True), ("1", False)] and not skipped


REFUSED = [
    ["noisy_latents.samples=0"],  # by its type
    ["granularity=layer", "granularity.scope=row"],  # by a rule
    ["model=local", "model.path=nowhere"],  # by what is at hand
    ["concept.label=${nothing}"],  # by the config's own references
]


@pytest.mark.parametrize("asked", REFUSED, ids=" ".join)
def test_a_run_that_is_refused_before_it_began_leaves_nothing(place: Path, asked: list[str]):
    answer = cad(place, *asked)
    assert answer.returncode and answer.stderr.startswith("error: "), answer.stderr
    assert not list((place / "work").iterdir()) and not (place / "cache").exists()


def test_a_refused_run_leaves_other_folders_alone(place: Path):
    """An empty folder of a person's, and that of an earlier run."""
    own, other = place / "work" / "own", place / "work" / "other"
    own.mkdir()
    os.utime(own, (1, 1))
    assert cad(place, *REFUSED[0], "hydra.run.dir=own").returncode == 1 and own.is_dir() and not list(own.iterdir())
    assert cad(place, "hydra.run.dir=other").returncode == 0
    before = state(other)
    assert cad(place, *REFUSED[0], "hydra.run.dir=other").returncode == 1 and state(other) == before


def test_refused_jobs_of_a_sweep_are_told_by_their_folders(place: Path):
    answer = cad(place, "-m", "noisy_latents.samples=0,1", "hydra.sweep.dir=sweep")
    assert answer.returncode == 1 and "1 of 2 jobs failed" in answer.stderr
    [note] = (place / "work" / "sweep").glob("*/error.json")
    assert "noisy_latents.samples" in json.loads(note.read_text())["error"]
