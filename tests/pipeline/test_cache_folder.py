"""The cache as a folder among other folders: what is ours is known by its mark, and nothing else is ever removed."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cad_exp
from cad_exp.cli.cache import main
from cad_exp.pipeline.cache import leases
from cad_exp.pipeline.cache.entry import ENTRY, damage, foreign
from cad_exp.pipeline.cache.folder import ASIDE, DRAFTS, TAG, USERS
from cad_exp.pipeline.cache.prune import prune
from cad_exp.pipeline.cache.store import Cache
from cad_exp.utils.errors import UserError

ROOT = Path(cad_exp.__file__).resolve().parents[1]


def write(draft: Path) -> None:
    (draft / "data.txt").write_text("content")


def put(cache: Cache, stage: str = "images", **inputs) -> Path:
    return cache.get(stage, inputs, write)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_cache_is_marked_as_the_standard_wants(cache: Cache):
    """https://bford.info/cachedir/: the file starts with this signature."""
    text = (cache.folder / TAG).read_bytes()
    assert text.startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n") and b"cad_exp cache, version 1\n" in text
    assert everything(cache.folder) == {TAG}
    Cache(cache.folder)
    (cache.folder / ".CACHEDIR-12.TAG").touch()  # of a process that was killed while it made the mark
    (cache.folder / TAG).unlink()
    Cache(cache.folder)


@pytest.mark.parametrize("tag", [None, "", "Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n"])
@pytest.mark.parametrize("command", [[], ["--prune"], ["--prune", "--older-than", "0"], ["--damaged"]])
def test_what_is_no_cache_is_refused_and_stays(tmp_path: Path, capsys, tag: str | None, command: list[str]):
    """`cache outputs --prune` took finished runs for entries, `cache .` the chapters of a thesis."""
    for name in ("church/results.json", "thesis/chapter-1/text.tex", "church-head-0123/images/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
    if tag is not None:
        (tmp_path / TAG).write_text(tag)
    before = everything(tmp_path)
    assert main([str(tmp_path), *command]) == 1
    assert everything(tmp_path) == before and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="runtime.cache"):
        Cache(tmp_path)
    assert everything(tmp_path) == before


def test_another_version_is_refused(cache: Cache):
    (cache.folder / TAG).write_text((cache.folder / TAG).read_text().replace("version 1", "version 2"))
    with pytest.raises(UserError, match="another version"):
        Cache(cache.folder)


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_cache_that_cannot_be_is_one_sentence(tmp_path: Path, name: str, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="runtime.cache"):
        Cache(tmp_path / name)
    assert main([str(tmp_path / name)]) == 1 and capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_home_folder_is_meant_as_it_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache("~/cache").folder == tmp_path / "cache" and (tmp_path / "cache" / TAG).is_file()


def odd(cache: Cache, tmp_path: Path) -> dict[str, Path]:
    """What is no entry, in an entry's place or beside it."""
    key = "0123456789abcdef01234567"
    places = {name: cache.folder / "images" / name for name in ("notes", key, key[::-1], "a" * 24, "b" * 24, "c.txt")}
    for name in ("notes", key, key[::-1]):
        places[name].mkdir(parents=True)
        (places[name] / "text").write_text("mine")
    (places[key] / ENTRY).write_text(json.dumps({"stage": "images", "inputs": {}, "files": {"text": ""}}))
    (places[key[::-1]] / ENTRY).write_text("[" * 9999)
    (tmp_path / "outside").mkdir()
    places["a" * 24].symlink_to(tmp_path / "outside")
    shutil.copytree(put(cache, number=9), tmp_path / "outside" / "entry")
    places["b" * 24].write_text("a file")
    places["c.txt"].write_text("a file")
    return places


@pytest.mark.parametrize("arguments", [[], ["--damaged"], ["--prune"], ["--prune", "--damaged"]])
def test_odd_entries_are_listed_and_never_removed(cache: Cache, tmp_path: Path, arguments: list[str], capsys):
    places = odd(cache, tmp_path)
    before = everything(tmp_path / "outside")
    cache.close()
    assert main([str(cache.folder), *arguments]) == 0
    said = capsys.readouterr().out
    for name, place in places.items():
        assert os.path.lexists(place) and name in said
    assert everything(tmp_path / "outside") == before
    assert ("removed 1 entries" in said) == (arguments == ["--prune"])


def test_links_are_not_followed_out_of_the_cache(cache: Cache, tmp_path: Path, capsys):
    other = Cache(tmp_path / "other")
    entry = put(other, number=1)
    (cache.folder / "images").symlink_to(other.folder / "images")  # a whole stage
    (cache.folder / "noisy_latents").mkdir()
    (cache.folder / "noisy_latents" / entry.name).symlink_to(entry)
    other.close()
    pruned = prune(cache)
    assert pruned[:2] == (0, 0) and len(pruned.left) == 2 and damage(entry) is None
    with pytest.raises(UserError, match="is a link"):
        put(cache, number=1)
    assert damage(entry) is None
    for name in (DRAFTS, USERS):
        (tmp_path / "third").mkdir(exist_ok=True)
        shutil.rmtree(cache.folder / name, ignore_errors=True)
        (cache.folder / name).symlink_to(tmp_path / "third")
        with pytest.raises(UserError, match="is a link"):
            Cache(cache.folder)
        (cache.folder / name).unlink()


def test_an_entry_with_a_file_of_a_person_stays(cache: Cache, capsys):
    place = put(cache, number=1)
    (place / "notes.txt").write_text("mine")
    cache.close()
    pruned = prune(cache)
    assert pruned.number == 0 and "notes.txt" in pruned.left[0][1] and (place / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("harm", ["foreign", "header", "file", "link"])
def test_what_is_no_entry_makes_room_and_is_kept(cache: Cache, tmp_path: Path, harm: str, capsys):
    place = put(cache, number=1)
    if harm == "foreign":
        (place / "notes.txt").write_text("mine")
        (place / "data.txt").write_text("changed")
    elif harm == "header":
        (place / ENTRY).write_text("{}")
    else:
        shutil.rmtree(place)
        place.write_text("mine") if harm == "file" else place.symlink_to(tmp_path)
    assert put(cache, number=1) == place and damage(place) is None and not place.is_symlink()
    [kept] = (cache.folder / ASIDE).iterdir()
    assert ASIDE in capsys.readouterr().out and kept.name.startswith(f"images-{place.name}")
    assert harm != "foreign" or (kept / "notes.txt").read_text() == "mine"


def test_prune_counts_only_what_it_removed(cache: Cache, monkeypatch, capsys):
    places = [put(cache, number=number) for number in range(3)]
    cache.close()

    def refuse(source, target):
        if Path(source) == places[1]:
            raise PermissionError(13, "Permission denied")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    pruned = prune(cache)
    assert pruned.number == 2 and pruned.left == [(places[1], "cannot be removed (Permission denied)")]
    assert [place.exists() for place in places] == [False, True, False]


def test_odd_drafts_stay(cache: Cache):
    for name in ("notes", "a-b-c", "host-1-2", f"{socket.gethostname()}-99999999-abc"):
        (cache.folder / DRAFTS / name).mkdir(parents=True)
    dead = cache.folder / DRAFTS / f"{socket.gethostname()}-4194304-0123abcd"
    dead.mkdir()
    cache.sweep_drafts()
    assert not dead.exists() and len(list((cache.folder / DRAFTS).iterdir())) == 4


# ------------------------------------------------------------------ leases


def test_what_a_living_process_looked_up_is_not_pruned(cache: Cache):
    old, new = put(cache, number=1), put(cache, number=2)
    cache.close()
    for place in (old, new):
        os.utime(place / ENTRY, (time.time() - 100,) * 2)
    user = Cache(cache.folder)
    assert put(user, number=2) == new
    pruned = prune(Cache(cache.folder))
    assert pruned.number == 1 and not old.exists() and new.exists() and "in use" in pruned.left[0][1]
    del user  # as when its process ends
    assert prune(Cache(cache.folder)).number == 1 and not list((cache.folder / USERS).iterdir())


def test_the_lease_of_a_killed_process_ends_with_it(cache: Cache):
    code = (
        "import os, sys; from cad_exp.pipeline.cache.store import Cache; cache = Cache(sys.argv[1])\n"
        "cache.get('images', {'number': 1}, lambda draft: (draft / 'a').write_text('a'))\n"
        "print('made', flush=True); sys.stdin.readline(); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(cache.folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "made\n"
    assert prune(cache).number == 0
    process.communicate("\n")
    assert list((cache.folder / USERS).iterdir()) and prune(cache).number == 1


def test_another_machine_counts_while_it_was_seen_within_a_day(cache: Cache):
    place, folder = put(cache, number=1), cache.folder / USERS
    cache.close()
    lease = folder / "elsewhere-1-0123abcd"
    for file in (lease, folder / f"{lease.name}.lock"):
        file.touch()
    os.utime(lease, (time.time() - 10 * leases.DAY,) * 2)
    assert leases.oldest(folder) == pytest.approx(time.time() - 10 * leases.DAY, abs=5) and prune(cache).number == 0
    os.utime(folder / f"{lease.name}.lock", (time.time() - 1.1 * leases.DAY,) * 2)
    assert prune(cache).number == 1 and not place.exists() and not lease.exists()


def test_prune_in_a_loop_beside_runs_takes_nothing_from_under_them(cache: Cache):
    """Runs look entries up and read them somewhat later, as `made` by them or by others; prune never sleeps."""
    stop, faults, pruned = threading.Event(), [], []

    def run(seed: int) -> None:
        for turn in range(15):
            own = Cache(cache.folder)
            places = [put(own, number=(seed + turn + i) % 7) for i in range(4)]
            time.sleep(0.005)
            faults.extend(place for place in places if damage(place) is not None)
            own.close()

    def clean() -> None:
        while not stop.is_set():
            pruned.append(prune(Cache(cache.folder)).number)

    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    cleaner = threading.Thread(target=clean)
    for thread in (cleaner, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    cleaner.join()
    assert not faults and sum(pruned) > 0


def test_redaction_is_never_seen_half(cache: Cache):
    place = put(cache, number=1)
    cache.redact(place, lambda folder: (folder / "data.txt").write_text("grey"))
    assert damage(place) is None and cache.redacted(place) and foreign(place) is None
    assert (place / "data.txt").read_text() == "grey" and not list((cache.folder / DRAFTS).iterdir())


# ------------------------------------------------------------- a cache that cannot be written


def read_only(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code where nothing below `folder` can be written, also not by the superuser."""
    head = (
        "import sys; from pathlib import Path; from cad_exp.pipeline.cache.prune import prune\n"
        "from cad_exp.pipeline.cache.store import Cache; from cad_exp.utils.errors import UserError\n"
        f"cache = Cache({str(folder)!r})\n"
    )
    command = [sys.executable, "-c", head + code]
    how = {"capture_output": True, "text": True, "timeout": 60, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    if os.getuid():
        paths = [folder, *folder.rglob("*")]
        modes = [path.stat().st_mode for path in paths]
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode & ~0o222)
        answer = subprocess.run(command, **how)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
        return answer
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("the superuser writes anywhere here")
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return subprocess.run(["unshare", "-m", "sh", "-c", mount, str(folder), *command], **how)


def test_a_cache_that_holds_everything_can_be_used_read_only(cache: Cache):
    place = put(cache, number=1)
    cache.close()
    code = (
        "place = cache.get('images', {'number': 1}, None); cache.sweep_drafts()\n"
        "with cache.hold(place): print((place / 'data.txt').read_text())\n"
        "with cache.scratch() as folder: (folder / 'x').touch()\n"
        "print(prune(cache).left[0][1])\n"
        "try: cache.get('images', {'number': 2}, None)\n"
        "except UserError as error: print(error)\n"
    )
    answer = read_only(cache.folder, code)
    assert answer.returncode == 0, answer.stderr
    content, left, lacking = answer.stdout.splitlines()
    assert content == "content" and "cannot be removed" in left and damage(place) is None
    assert "lacks images for this run and cannot be written" in lacking and "give another runtime.cache" in lacking


def test_a_full_disk_under_a_tensor_file_is_the_same_sentence(cache: Cache):
    def fill(draft: Path) -> None:
        kind = type("SafetensorError", (Exception,), {})
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match="the disk of .* is full.*--prune"):
        cache.get("noisy_latents", {}, fill)
    assert not list((cache.folder / DRAFTS).iterdir())


def test_entries_have_ordinary_permissions(cache: Cache):
    def private(draft: Path) -> None:
        (draft / "data").touch(0o600)

    before = os.umask(0o022)
    try:
        place = cache.get("noisy_latents", {}, private)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
