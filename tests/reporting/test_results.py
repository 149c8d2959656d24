import errno
import hashlib
import json
import os
import subprocess
import time

import numpy as np
import pytest
import torch
from rich.console import Console

from cad_exp.config.effective import asked, effective
from cad_exp.reporting import summary
from cad_exp.reporting.results import Results, git_revision, harm, load_results, run_info, signed
from cad_exp.reporting.schema import FIELDS
from cad_exp.utils import console, progress
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import digest
from cad_exp.utils.io import atomic, write_json


def metric(**changes) -> dict:
    base = {
        "name": "concept_rate",
        "variant": "edited",
        "value": 0.05,
        "low": 0.0,
        "high": 0.1,
        "n": 64,
        "higher_is_better": False,
        "definition": {"judge": "mini"},
        "changes": {},
    }
    return {**base, **changes}


def test_schema(tmp_path):
    config = {"seed": 3, "concept": {"name": "church"}}
    results = Results(tmp_path, run_info(config, seed=3, device=torch.device("cpu"), model="abc"))
    with results.time("noisy_latents"):
        time.sleep(0.02)
    results.add(metric())
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == load_results(tmp_path) == results.as_dict()
    assert set(content) == {"schema_version", "run", "metrics", "checksum"} and content["schema_version"] == 2
    assert {"config_hash", "seed", "git", "versions", "device", "seconds"} <= set(content["run"])
    assert content["run"]["seed"] == 3 and content["run"]["device"] == "cpu" and content["run"]["model"] == "abc"
    assert (
        content["run"]["versions"]["torch"] == torch.__version__ and content["run"]["seconds"]["noisy_latents"] >= 0.02
    )
    assert content["metrics"] == [metric()] and tuple(content["metrics"][0]) == FIELDS


def test_every_metric_is_on_disk_at_once_and_replaces_its_former_self(tmp_path):
    results = Results(tmp_path, {})
    for number, new in enumerate([metric(), metric(variant="random", value=0.9), metric(value=0.2)]):
        results.add(new)
        assert len(load_results(tmp_path)["metrics"]) == min(number + 1, 2)
    assert [known["value"] for known in load_results(tmp_path)["metrics"]] == [0.2, 0.9]


def test_many_metrics_are_written_once(tmp_path, monkeypatch):
    """A run with many places has thousands: to write them one by one takes minutes."""
    results, written = Results(tmp_path, {}), []
    monkeypatch.setattr(results, "_write", lambda: written.append(len(results.metrics)))
    results.add(metric(), metric(variant="random"), metric(value=0.2))
    assert written == [2] and [known["value"] for known in results.metrics] == [0.2, metric()["value"]]


@pytest.mark.parametrize("wrong", [{"variant": "other"}, {"extra": 1}, {"value": "0.5"}, {"n": 2.5}, {"low": 1e101}])
def test_a_metric_of_another_shape_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Results(tmp_path, {}).add(metric(**wrong))


def test_numbers_of_other_libraries_become_plain_and_nan_becomes_null(tmp_path):
    results = Results(tmp_path, {})
    results.add(metric(value=np.float32(0.5), low=float("nan"), high=torch.tensor(float("inf")), n=np.int64(4)))
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    [read] = json.loads(text)["metrics"]
    assert (read["value"], read["low"], read["high"], read["n"]) == (0.5, None, None, 4)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("{")
        raise KeyboardInterrupt
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} and [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_config_hash_sees_what_can_change_a_number():
    config = {"seed": 0, "edit": {"ratio": 0.1}, "tracking": {"mode": "offline"}}
    same = [config, dict(reversed(config.items())), {**config, "tracking": {"mode": "online"}}]
    assert len({digest(effective(each)) for each in same}) == 1
    assert digest(effective(config)) != digest(effective({**config, "edit": {"ratio": 0.2}}))


def test_what_was_asked_is_the_same_on_every_machine():
    config = {"seed": 0, "runtime": {"device": "cpu", "threads": 2, "precision": "auto"}}
    assert asked(config) == asked({**config, "runtime": {"device": "cuda", "threads": None, "precision": "auto"}})
    assert asked(config) != asked({**config, "runtime": {**config["runtime"], "precision": "bf16"}})
    assert asked(config) != asked({**config, "seed": 1})
    assert asked({"edit": {"factor": -1}, "rates": [1]}) == asked({"edit": {"factor": -1.0}, "rates": [1.0]})


def test_harm_to_a_promised_file_is_named(tmp_path):
    results = Results(tmp_path, {"identity": "a"})
    (tmp_path / "edit.safetensors").write_bytes(b"12")
    results.finish()
    content = load_results(tmp_path)
    assert content == results.as_dict() and content["run"]["complete"] and harm(tmp_path, content) is None
    (tmp_path / "edit.safetensors").write_bytes(b"13")
    assert harm(tmp_path, content) == "edit.safetensors is not what was written"
    (tmp_path / "edit.safetensors").unlink()
    assert harm(tmp_path, content) == "edit.safetensors is missing"


def test_git_revision(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert git_revision(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("1")
    assert git_revision(tmp_path) is None  # in a repository, but not part of it
    git("add", "file")
    git("commit", "-m", "first", "--no-verify")
    clean = git_revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert git_revision(tmp_path) == f"{clean}-dirty"


@pytest.mark.parametrize(
    "content",
    [None, "{", '{"schema_version": 99}', "[]", '{"schema_version": 2}', "[" * 99999, '{"schema_version": {}}']
    + ['{"schema_version": 2, "run": NaN}', '{"schema_version": 2, "n": 1' + "0" * 5000 + "}"],
    ids=range(9),
)
def test_a_missing_or_foreign_file_is_explained(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match="results.json"):
        load_results(tmp_path)


def test_final_table_shows_intervals_and_directions(capsys, tmp_path):
    summary.show_metrics(
        [
            metric(),
            metric(variant="unedited", value=1.0, low=0.98, high=1.0),
            metric(name="fid", value=12.345, low=None, high=None, higher_is_better=None),
        ],
        "Erasing [church]",
    )
    summary.show_places({"results": tmp_path / "results.json"})
    shown = capsys.readouterr().out
    assert "Erasing [church]" in shown and "concept rate ↓" in shown
    assert "0.050" in shown and "[.000, .100]" in shown and "[.980, 1.000]" in shown and "12.3" in shown
    assert str(tmp_path / "results.json") in shown


def test_eighty_columns_show_whole_numbers_n_changes_and_warnings(monkeypatch, capsys):
    monkeypatch.setattr(summary, "console", lambda stderr=False: Console(width=80, highlight=False))
    change = {"value": -0.984, "low": -0.997, "high": -0.902, "interval": "paired"}
    warned = {"judge": "mini", "warning": "60 of 64 images are of one colour"}
    names = ("concept_rate", "retention_worst", "perceptual_distance_worst", "outside_world_retention", "kid")
    found = [
        metric(name=name, variant=variant, value=-0.014, low=-0.015, high=-0.013, definition=warned, changes=changes)
        for name in names
        for variant, changes in (("unedited", {}), ("edited", {"unedited": change}), ("random", {}))
    ]
    found += [metric(name=f"drawn@{name}", value=share) for name, share in (("tench", 0.7), ("gas pump", 0.2))]
    summary.show_metrics(found)
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("value over"))]
    assert max(map(len, table)) <= 80 and sum(map(bool, map(str.strip, table))) == 2 + 2 * len(names)
    rows = [line for line in table if "n = 64" in line]
    assert len(rows) == len(names) and all(row.count("[-.015, -.013]") == 3 for row in rows)
    assert all("[-.997, -.902]" in row for row in rows) and sum("-0.984" in line for line in table) == len(names)
    assert "drawn by the edited model for the concept: tench 70 %, gas pump 20 %" in lines
    assert any(
        line.startswith("* unedited, edited, random: 60 of 64 images are of one colour, so little") for line in lines
    )


def test_progress_is_silent_when_quick_and_tells_the_rest_when_slow(capsys, monkeypatch):
    now = iter([0.0, 1.0, 5.0, 6.0, 16.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress(10, "generating [church]") as tick:
        for done in (1, 2, 3, 8, 10):
            tick(done, 10)
    assert capsys.readouterr().out.splitlines() == [
        "  generating [church]: 2/10, ETA 20 s",
        "  generating [church]: 8/10, ETA 4 s",
    ]


def test_durations():
    assert [console.duration(seconds) for seconds in (4.4, 65, 7620)] == ["4 s", "1 min 05 s", "2 h 07 min"]


def test_the_checksum_is_of_the_content_not_of_its_layout(tmp_path):
    """By hand: SHA-256 of the JSON with sorted keys, default separators, without the checksum itself."""
    content = {"schema_version": 2, "run": {"complete": True, "seconds": {}, "b": 1, "a": "ü"}, "metrics": []}
    text = '{"metrics": [], "run": {"a": "ü", "b": 1, "complete": true, "seconds": {}}, "schema_version": 2}'
    assert signed(content)["checksum"] == hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "results.json").write_text(json.dumps(dict(reversed(signed(content).items())), indent=7))
    assert load_results(tmp_path) == signed(content)
    (tmp_path / "results.json").write_text(json.dumps(signed(content)).replace('"b": 1', '"b": 2'))
    with pytest.raises(UserError, match="checksum"):
        load_results(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_any_new_file(tmp_path, mask):
    from cad_exp.utils.io import link
    from cad_exp.utils.tensors import save_tensors

    before = os.umask(mask)
    try:
        save_tensors(tmp_path / "edit.safetensors", "edit", {"a": torch.zeros(1)}, {})
        write_json(tmp_path / "file.json", {})
        (tmp_path / "private").touch(0o600)
        link(tmp_path / "private", tmp_path / "linked")
    finally:
        os.umask(before)
    names = ("edit.safetensors", "file.json", "linked")
    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in names} == dict.fromkeys(names, 0o666 & ~mask)


def test_a_full_disk_under_a_tensor_file_is_the_systems_error(tmp_path, monkeypatch):
    """/dev/full is a disk without room; safetensors tells it as a SafetensorError."""
    from safetensors import SafetensorError

    from cad_exp.utils import tensors

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    (tmp_path / "edit.safetensors").write_bytes(b"old")
    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError) as caught:
        tensors.save_tensors(tmp_path / "edit.safetensors", "edit", {}, {})
    assert caught.value.errno == errno.ENOSPC and (tmp_path / "edit.safetensors").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_truncated_checkpoint_is_told_and_starts_over(tmp_path, capsys):
    from cad_exp.utils.tensors import resumed, save_tensors

    path = save_tensors(tmp_path / "state.safetensors", "checkpoint", {"values": torch.ones(9)}, {"n": 9})
    assert resumed(path, "checkpoint")[1] == {"n": 9}
    path.write_bytes(path.read_bytes()[:-8])
    assert resumed(path, "checkpoint") is None and not path.exists()
    assert "is damaged: starting over" in " ".join(capsys.readouterr().out.split())


def test_what_is_only_shown_asks_the_same_question():
    """Runs before the setting was there stay in the tables of their studies; one that shows more is another run."""
    config = {"seed": 3, "evaluation": {"samples": 4}}
    more = {"seed": 3, "evaluation": {"samples": 4, "counterfactuals": 6}}
    assert asked(config) == asked(more) and effective(config) != effective(more)
    assert asked(more) != asked({"seed": 3, "evaluation": {"samples": 5, "counterfactuals": 6}})
