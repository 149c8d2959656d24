"""The stage cache: nothing twice, nothing stale, nothing damaged, nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cad_exp.cli.cache import main
from cad_exp.config.resolve import resolve
from cad_exp.models.content import model_content
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.pipeline.cache.entry import ENTRY, damage
from cad_exp.pipeline.cache.prune import prune
from cad_exp.pipeline.cache.store import Cache
from cad_exp.pipeline.identity import run_identity, sweep_name
from cad_exp.pipeline.keys import code_version
from cad_exp.pipeline.run import run
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.model import _kept
from cad_exp.pipeline.tasks.attribute import build
from cad_exp.utils.errors import UserError
from tests.cli.test_cli import ROOT
from tests.config.test_configs import composed
from tests.pictures import undrawn
from tests.pipeline.test_experiment import FAST

INPUTS = {"seed": 0, "steps": 4}


def write(draft: Path) -> None:
    (draft / "data.txt").write_text("content")
    (draft / "sub").mkdir()
    (draft / "sub" / "more.bin").write_bytes(bytes(100))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_an_entry_is_made_once(cache: Cache):
    first = cache.get("stage", INPUTS, write)
    again = cache.get("stage", dict(reversed(INPUTS.items())), lambda draft: pytest.fail("made twice"))
    assert first == again and (first / "data.txt").read_text() == "content"
    assert (cache.made["stage"], cache.reused["stage"]) == (1, 1)
    other = cache.get("stage", {**INPUTS, "seed": 1}, write)
    assert other != first and cache.made["stage"] == 2
    assert cache.get("other", INPUTS, write) != first


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lie(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "inputs": {"seed": 1}}))


@pytest.mark.parametrize(
    "name, harm",
    [
        ("data.txt", cut),
        ("data.txt", flip),
        ("data.txt", Path.unlink),
        ("sub/more.bin", flip),
        (ENTRY, cut),
        (ENTRY, lie),
        (ENTRY, Path.unlink),
    ],
)
def test_damage_is_noticed_reported_and_mended(name: str, harm, cache: Cache, capsys):
    place = cache.get("stage", INPUTS, write)
    assert damage(place) is None
    harm(place / name)
    assert damage(place)
    assert cache.get("stage", INPUTS, write) == place
    assert damage(place) is None and cache.made["stage"] == 2
    assert "damaged" in capsys.readouterr().out


def test_a_full_disk_is_one_sentence_and_leaves_nothing(cache: Cache):
    def fill(draft: Path) -> None:
        (draft / "half").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="full.*--prune"):
        cache.get("stage", INPUTS, fill)
    assert not list(cache.folder.glob("[!.]*/*")) and not list((cache.folder / ".drafts").iterdir())
    assert cache.get("stage", INPUTS, write).is_dir()  # and the lock is free again


def test_two_processes_make_an_entry_once(cache: Cache, tmp_path: Path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cad_exp.pipeline.cache.store import Cache\n"
        "def make(draft):\n"
        "    with open(sys.argv[2], 'a') as log: log.write('made\\n')\n"
        "    time.sleep(1.5); (draft / 'data').write_text('x')\n"
        "print((Cache(sys.argv[1]).get('stage', {}, make) / 'data').read_text())\n"
    )
    command = [sys.executable, "-c", code, str(cache.folder), str(tmp_path / "log")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].splitlines()[-1] for process in running] == ["x"] * 3
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_a_killed_process_left_is_cleared_away(cache: Cache):
    code = (
        "import os, sys\nfrom cad_exp.pipeline.cache.store import Cache\n"
        "def make(draft):\n    (draft / 'half').write_text('x'); os.kill(os.getpid(), 9)\n"
        "Cache(sys.argv[1]).get('stage', {'seed': 0, 'steps': 4}, make)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(cache.folder)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert list((cache.folder / ".drafts").iterdir())
    cache.sweep_drafts()
    assert not list((cache.folder / ".drafts").iterdir())
    assert damage(cache.get("stage", INPUTS, write)) is None


def test_prune_and_list(cache: Cache, capsys):
    old = cache.get("images", {"seed": 1}, write)
    new = cache.get("images", {"seed": 2}, write)
    latents = cache.get("noisy_latents", {"seed": 1}, write)
    cache.close()  # what is in use is not pruned
    os.utime(old / ENTRY, (time.time() - 40 * 86400,) * 2)
    assert main([str(cache.folder)]) == 0
    assert "images" in (said := capsys.readouterr().out) and "noisy_latents" in said
    assert prune(cache, "images", older_than=30)[0] == 1 and not old.exists() and new.exists() and latents.exists()
    flip(new / "data.txt")
    assert prune(cache, damaged=True)[0] == 1 and not new.exists() and latents.exists()
    assert main([str(cache.folder), "--prune", "--stage", "nosy_latents"]) == 1
    assert "did you mean 'noisy_latents'" in capsys.readouterr().err
    for days in ("-1", "nan", "inf", "many"):  # -1 and nan would take everything
        assert main([str(cache.folder), "--prune", f"--older-than={days}"]) == 2 and latents.exists()
        assert capsys.readouterr().err.startswith("error: --older-than")
    assert main([str(cache.folder), "--prune"]) == 0 and not latents.exists()
    assert main([str(cache.folder / "nowhere")]) == 1


def test_code_counts_but_comments_do_not(tmp_path: Path, monkeypatch):
    package = tmp_path / "plug_in"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from .b import x\nfrom plug_in import d\nimport json, not_there\n")
    (package / "b.py").write_text("def f():\n    from plug_in.c import y\n")
    (package / "c.py").write_text("y = 1\n")
    (package / "d.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .e import z\n")
    (package / "e.py").write_text("z = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    version = code_version.__wrapped__
    first = version("plug_in.a")
    for file, text in (("c.py", "# a comment\ny  =  1\n"), ("e.py", "z = 2\n")):  # what only type checkers see
        (package / file).write_text(text)
        assert version("plug_in.a") == first
    for file in ("b.py", "c.py", "d.py", "a.py"):
        (package / file).write_text("y = 2\n" + (package / file).read_text())
        assert version("plug_in.a") != first
        first = version("plug_in.a")


def test_a_module_that_is_not_there_is_no_part_of_a_key():
    with pytest.raises(ModuleNotFoundError, match="no such module.*cad_exp.noisy_latents"):
        code_version("cad_exp.utils.io", "cad_exp.noisy_latents")


def test_a_plug_in_without_source_counts_as_its_file_or_as_absent(tmp_path: Path, monkeypatch):
    """A package that is broken must not keep others from working, and a compiled one counts by its bytes."""
    from importlib.machinery import EXTENSION_SUFFIXES

    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    version = code_version.__wrapped__
    found = [version("compiled.fast"), version("nowhere.at_all")]
    for content in (b"one", b"two"):
        (tmp_path / "compiled" / f"fast{EXTENSION_SUFFIXES[0]}").write_bytes(content * (1 + len(found)))
        found.append(version("compiled.fast"))
    assert len(set(found)) == 4


def test_stages_depend_on_the_modules_that_make_them():
    whole = [
        code_version(name)
        for name in (
            "cad_exp.models.pipeline",
            "cad_exp.data.noisy_latents",
            "cad_exp.attribution.game",
            "cad_exp.evaluation.erasure",
            "cad_exp.pipeline.run",
        )
    ]
    assert len(set(whole)) == len(whole)


def test_a_sweep_keeps_its_folder():
    swept = ["concept=church,tench"]
    assert sweep_name([*swept, "seed=1"], swept) == sweep_name([*swept, "seed=1"], swept)
    assert sweep_name([*swept, "seed=1"], swept) != sweep_name([*swept, "seed=2"], swept)
    for nothing in ("tracking.project=x", "tracking=disabled", "++runtime.cache=y", "+runtime.offload=none"):
        assert sweep_name([*swept, nothing], [*swept, nothing]) == sweep_name(swept, swept)
    assert sweep_name(["a=[1,2]/../x,y"], ["a=[1,2]/../x,y"]).count("/") == 0


# ---------------------------------------------------------------------------------------------- whole stages


@pytest.fixture(scope="module")
def lab(tiny_folder: Path, tmp_path_factory) -> Path:
    """Two copies of the tiny pipeline that differ in one weight, two folders of images, and a shared cache."""
    from PIL import Image
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("lab")
    for name in ("first", "second"):
        shutil.copytree(tiny_folder, folder / name)
        (folder / f"images-{name}").mkdir()
        Image.new("RGB", (16, 16), (200, 30, 30) if name == "first" else (30, 30, 200)).save(
            folder / f"images-{name}" / "one.png"
        )
    [weights] = (folder / "second" / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("to_out.0.weight"))
    tensors[name][0, 0] += 1
    save_file(tensors, str(weights), metadata={"format": "pt"})
    return folder


CHOICES = {
    "seed": [0, 1],
    "concept.prompt": ["church", "tench"],
    "concept.base_prompt": ["", "a photo"],
    "noisy_latents.samples": [1, 2],
    "noisy_latents.steps": [2, 3],
    "noisy_latents.guidance": [1.0, 3.0],
    "objective": ["erase", "projection", "amplify"],
    "granularity": ["neuron", "head"],
    "edit.ratio": [0.1, 0.5],
    "edit.scope": ["layer", "global"],
    "evaluation.seed": [0, 1],
    "model.steps": [2, 3],
    "model.guidance": [2.0, 4.0],
    "model.path": ["first", "second"],
    "noisy_latents.images": ["images-first", "images-second"],
    "concept.evaluation_prompts": ["[a]", "[b]"],
    "runtime.batch_size": [2, 64],
}


def made(lab: Path, chosen: dict, cache: Path) -> list:
    """Everything that the cached stages give for a config, as comparable values."""
    given = {
        **chosen,
        "model.path": lab / chosen["model.path"],
        "noisy_latents.images": lab / chosen["noisy_latents.images"],
    }
    fixed = ["edit=erase", "model=local", "judge=none", "concept=church", "evaluation=erasure"]
    fixed += ["evaluation.samples=2", "runtime.threads=1"]
    config = resolve(composed(*fixed, *(f"{key}={value}" for key, value in given.items())))
    runtime, graph = Runtime(config["runtime"] | {"cache": str(cache)}, cache), build(config)
    latents, scored = runtime.get(graph.latents), runtime.get(graph.scores.scores)
    pictures = [runtime.get(node) for node in graph.pictures.values()]
    return [
        latents.x,
        latents.cond,
        *scored.scores.values(),
        *(torch.tensor(list(file.read_bytes())) for files in pictures for file in files),
    ]


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_any_setting_hits_a_stale_entry(lab: Path, tmp_path_factory, data):
    from_neighbour_to_neighbour(lab, tmp_path_factory, data)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_changes_of_settings_hit_no_stale_entry(lab: Path, tmp_path_factory, data):
    from_neighbour_to_neighbour(lab, tmp_path_factory, data)


def from_neighbour_to_neighbour(lab: Path, tmp_path_factory, data) -> None:
    """From one config to a neighbour and back, on one cache: always what a cold run gives."""
    chosen = {key: data.draw(st.sampled_from(values), key) for key, values in CHOICES.items()}
    key = data.draw(st.sampled_from(sorted(CHOICES)), "changed")
    other = {**chosen, key: next(value for value in CHOICES[key] if value != chosen[key])}
    made(lab, chosen, lab / "cache")
    warm, cold = made(lab, other, lab / "cache"), made(lab, other, tmp_path_factory.mktemp("cold"))
    assert len(warm) == len(cold) and all(torch.equal(a, b) for a, b in zip(warm, cold, strict=True))


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_every_setting_counts_in_a_runs_identity(key: str, lab: Path):
    def identity(value) -> str:
        value = lab / value if key in ("model.path", "noisy_latents.images") else value
        path = [] if key == "model.path" else [f"model.path={lab / 'first'}"]
        fixed = ["edit=erase", "model=local", "judge=none", "concept=church", *path]
        return run_identity(resolve(composed(*fixed, f"{key}={value}")))

    first, second = CHOICES[key][:2]
    assert identity(first) == identity(first) != identity(second)


def test_weights_are_known_by_their_content(lab: Path, tmp_path: Path):
    def weights(folder: Path) -> str:
        return model_content({"path": str(folder), "revision": None, "edits": []})["weights"]

    assert weights(lab / "first") != weights(lab / "second")
    shutil.copytree(lab / "first", tmp_path / "moved")
    assert weights(tmp_path / "moved") == weights(lab / "first")


def test_a_cached_run_loads_no_model_and_gives_the_same(tmp_path: Path, monkeypatch, capsys):
    def go(folder: str, *overrides: str) -> dict:
        with undrawn():
            return run(composed(*FAST, f"runtime.cache={tmp_path / 'cache'}", *overrides), tmp_path / folder)

    asked = ["concept=church", "estimator.patterns=4", "retention_prompts=templates", "retention_prompts.limit=4"]
    asked += ["retention_prompts.per_prompt=2"]
    first = go("first", *asked)
    _kept.cache_clear()
    monkeypatch.setattr(DiffusionModel, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    monkeypatch.setattr(
        "cad_exp.mini.judge.MiniJudge.classifier", property(lambda self: pytest.fail("a judge was loaded"))
    )
    capsys.readouterr()
    second = go("second", *asked)
    assert first["metrics"] == second["metrics"] and "all from the cache" in capsys.readouterr().out
    for name in first["run"]["files"]:
        if not name.endswith(".png") or name.startswith("images"):
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_damaged_image_in_the_cache_is_made_again(tmp_path: Path, capsys):
    def go(folder: str) -> dict:
        asked = [*FAST, f"runtime.cache={tmp_path / 'cache'}", "evaluation=erasure"]
        with undrawn():
            return run(composed(*asked), tmp_path / folder)

    first = go("first")
    flip(next(iter((tmp_path / "cache" / "images").glob("*/0000.png"))))
    cut(next(iter((tmp_path / "cache" / "attribution").glob("*/attribution.safetensors"))))
    cut(next(iter((tmp_path / "cache" / "judgements").glob("*/judgements.parquet"))))
    capsys.readouterr()
    second = go("second")
    said = capsys.readouterr().out
    assert (
        all(f"{stage} " in said for stage in ("images", "attribution", "judgements"))
        and said.count("is damaged (") == 3
    )
    assert first["metrics"] == second["metrics"]


def test_concepts_share_unguided_walks(tmp_path: Path):
    for concept in ("church", "tench"):
        asked = ["noisy_latents.guidance=0", "evaluation=none", f"runtime.cache={tmp_path / 'c'}"]
        with undrawn():
            run(composed(*FAST, f"concept={concept}", *asked), tmp_path / concept)
    count = {stage: len(list((tmp_path / "c" / stage).iterdir())) for stage in ("walks", "noisy_latents")}
    assert count == {"walks": 1, "noisy_latents": 2}
