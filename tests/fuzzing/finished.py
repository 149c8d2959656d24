"""Folders of finished runs, damaged and hostile: for `report`, which reads all of them, and `export`, the edit."""

import json
import pickle
import shutil
import struct
from pathlib import Path

from tests.fuzzing.files import _OURS, UNET, Evil, _edit, _good, _png, _signed, hostile, safetensors

# A person's own names and texts, as a page must not take them.
NASTY = ("<script>alert(1)</script>", "\x1b[2J\x07", "\u202eevil", "a" * 5000, "{{ 7 * 7 }}", "${oc.env:HOME}", "")


def _promised(folder: Path, run: dict | None = None, **changed: object) -> None:
    """Make results.json promise what lies in the folder, so that what is wrong is met behind it."""
    from cad_exp.utils.hashing import file_digest

    file = folder / "results.json"
    content = json.loads(file.read_text()) if file.is_file() else _good()
    named = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    aside = ("results.json", ".cad_exp-run", "config/", "report.html")
    content["run"]["files"] = {name: file_digest(path) for name, path in named.items() if not name.startswith(aside)}
    content["run"] |= run or {}
    file.write_text(json.dumps(_signed(content | changed)))
    _OURS[folder.parent] = list(folder.parent.rglob("*"))


# A run's report


def _run(place: Path) -> Path:
    """A finished run as the report's tests have it."""
    from tests.reporting import finished_runs

    return finished_runs.attribute_run(place / "run")


@hostile("reports")
def damaged_json(place, rng):
    folder = _run(place)
    odd = [b"", b"{", b"[]", b"null", b'{"mine": 1}', b"\xff\xfe", b"[" * 90_000]
    (folder / "results.json").write_bytes(rng.choice(odd))
    return [str(folder)]


@hostile("reports")
def odd_facts(place, rng):
    folder = _run(place)
    odd = ["x", [1], {"a": 1}, None, True, 1e99, {"chosen": "x", "tried": [{"strength": "x", "rate": []}]}]
    keys = ["strength", "verdict", "left_out", "versions", "seconds", "explicit", "granularity", "task", "concept"]
    _promised(folder, {key: rng.choice(odd) for key in rng.sample(keys, 3)})
    return [str(folder)]


@hostile("reports")
def odd_settings(place, rng):
    folder = _run(place)
    odd = [{"granularity": "x"}, {"concept": [], "granularity": {"kinds": "x"}}, {"evaluation": 3, "judge": 4}, {}]
    _promised(folder, {"config": rng.choice(odd), "explicit": None})
    return [str(folder)]


@hostile("reports")
def truncated_table(place, rng):
    folder = _run(place)
    file = rng.choice(sorted(folder.glob("*.parquet")))
    file.write_bytes(file.read_bytes()[: rng.choice([0, 4, 100, 1000])])
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def table_of_others(place, rng):
    import pandas as pd

    folder = _run(place)
    file = rng.choice(sorted(folder.glob("*.parquet")))
    table = rng.choice([pd.DataFrame({"x": [1]}), pd.DataFrame(), pd.read_parquet(file).astype(str)])
    table.to_parquet(file)
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def pickle_named_parquet(place, rng):
    folder = _run(place)
    rng.choice(sorted(folder.glob("*.parquet"))).write_bytes(pickle.dumps(Evil(place / "ran")))
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def pickle_of_weights(place, rng):
    folder = _run(place)
    (folder / "attribution.safetensors").write_bytes(pickle.dumps(Evil(place / "ran")))
    _promised(folder, {"granularity": "weight"})
    return [str(folder)]


@hostile("reports")
def images_that_are_none(place, rng):
    folder = _run(place)
    for file in folder.rglob("*.png"):
        file.write_bytes(rng.choice([b"", b"<html>", _png(30_000, 30_000, data=b"\0" * 100), _png(64, 64)[:60]]))
    (folder / "timesteps.png").write_bytes(_png(30_000, 30_000, data=b"\0"))
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def image_elsewhere(place, rng):
    folder = _run(place)
    file = rng.choice(sorted(folder.rglob("*.png")))
    file.unlink()
    file.symlink_to(place.parents[3] / "outside" / "precious" / "results.json")
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def nasty_names(place, rng):
    import pandas as pd

    folder, text = _run(place), rng.choice(NASTY)
    for name, column in (("records", "prompt"), ("components", "name"), ("components", "block")):
        table = pd.read_parquet(folder / f"{name}.parquet")
        table[column] = text
        table.to_parquet(folder / f"{name}.parquet")
    _promised(folder, {"concept": text, "model": text, "verdict": {text: text}, "left_out": {text: text}})
    return [str(folder)]


@hostile("reports")
def command_with_code(place, rng):
    folder = _run(place)
    (folder / "config").mkdir()
    code = f'!!python/object/apply:builtins.open ["{place / "ran"}", "w"]\n'
    (folder / "config" / "overrides.yaml").write_text(rng.choice([code, "- a: [\n", "x", "- 3\n- [a]\n", "&a [*a]"]))
    (folder / "config" / "hydra.yaml").write_text(rng.choice([code, "hydra: {runtime: {config_sources: [3]}}"]))
    _promised(folder)
    return [str(folder)]


@hostile("reports")
def report_of_somebody(place, rng):
    folder = _run(place)
    page = folder / "report.html"
    _promised(folder)
    if rng.random() < 0.5:
        page.write_text("mine")
    else:
        page.symlink_to(place.parents[3] / "outside" / "precious" / "results.json")
    _OURS[place] = [each for each in place.rglob("*") if each != page]
    return [str(folder)]


@hostile("reports")
def page_elsewhere(place, rng):
    folder = _run(place)
    _promised(folder)
    wrong = ["notes.txt", "link", "absent/page.html", str(folder), "", "latest.txt", "x.html/y.html"]
    return [str(folder), "--to", rng.choice(wrong)]


@hostile("reports")
def folder_of_others(place, rng):
    return [rng.choice([".", "..", "link", "notes.txt", "absent", "", "/dev/null", "x" * 5000])]


@hostile("reports")
def sweep_of_the_damaged(place, rng):
    for name in "abc":
        folder = _run(place / name)
        (folder / "results.json").write_bytes(
            rng.choice([b"", b"{", b"\xff", folder.joinpath("results.json").read_bytes()])
        )
    _OURS[place] = list(place.rglob("*"))
    return [str(place), "--to", str(place / "all.html")]


# A run's edit

MODEL = {"name": "mini", "path": "mini", "steps": 2, "guidance": 4.0, "resolution": None, "revision": None}
MODEL |= {"weights": None, "config": None, "lora": [], "lora_scale": 1.0, "edits": [], "erased": None}
TO = ("to=checkpoint", "to=lora")


def _edited(place: Path, data: bytes | None = None, model: object = MODEL, **run: object) -> Path:
    """A finished run of task=attribute, as far as its edit is asked for."""
    folder = place / "run"
    folder.mkdir()
    if data is None:
        header = {"unit": "column", "factor": -1.0, "meta": {}}
        _edit(folder / "edit.safetensors", header, values=1)
    else:
        (folder / "edit.safetensors").write_bytes(data)
    _promised(folder, {"task": "attribute", "edit": "erase", "config": {"model": model}, "precision": "fp32"} | run)
    return folder


@hostile("exports")
def pickle_of_an_edit(place, rng):
    return [str(_edited(place, pickle.dumps(Evil(place / "ran")))), rng.choice(TO)]


@hostile("exports")
def odd_edit(place, rng):
    odd = [b"", b"\0" * 7, struct.pack("<Q", 2**62) + b"{", safetensors(b"{}"), safetensors({"a": 1}), b"\xff" * 500]
    return [str(_edited(place, rng.choice(odd))), rng.choice(TO)]


@hostile("exports")
def edit_of_another_model(place, rng):
    folder = place / "run"
    folder.mkdir()
    name = rng.choice(["nowhere.to_out.0", "conv_in", UNET, "mid_block", "__class__", ""])
    _edit(folder / "edit.safetensors", {"unit": "column", "factor": -1.0, "meta": {}}, name=name, values=1)
    data = (folder / "edit.safetensors").read_bytes()
    shutil.rmtree(folder)
    return [str(_edited(place, data)), rng.choice(TO)]


@hostile("exports")
def odd_model(place, rng):
    odd = ["x", [1], {"a": 1}, None, True, -1, 1e99, "absent.safetensors", ["notes.txt"], str(place)]
    keys = rng.sample(sorted(MODEL), rng.choice([1, 2]))
    model = rng.choice([MODEL | {key: rng.choice(odd) for key in keys}, {}, [], "mini", None, {"path": "mini"}])
    return [str(_edited(place, model=model)), rng.choice(TO)]


@hostile("exports")
def odd_run(place, rng):
    odd = ["x", [1], {"edit.safetensors": 3}, None, True, 7]
    keys = ["files", "precision", "task", "edit", "config", "complete"]
    return [str(_edited(place, **{rng.choice(keys): rng.choice(odd)})), rng.choice(TO)]


@hostile("exports")
def erased_by_a_pickle(place, rng):
    folder = _edited(place, model=MODEL | {"erased": {"edit": {"name": "uce"}}})
    if rng.random() < 0.7:
        (folder / "erased.safetensors").write_bytes(pickle.dumps(Evil(place / "ran")))
        _promised(folder)
    return [str(folder), rng.choice(TO)]


@hostile("exports")
def place_of_somebody(place, rng):
    wrong = ["notes.txt", "thesis", "link", "edit.safetensors", "latest.txt", ".", "..", "absent/x/y.safetensors"]
    wrong += ["/proc/x.safetensors", "notes.txt/x.safetensors", "x" * 300 + ".safetensors", "~"]
    return [str(_edited(place)), rng.choice(TO), f"path={rng.choice(wrong)}"]


@hostile("exports")
def odd_words(place, rng):
    words = [
        "to=",
        "to",
        "to=LORA",
        "to=hub",
        "to=hub repository=",
        "path=x",
        "=x",
        "to=lora to=hub",
        "--to lora",
        "-x",
    ]
    words += ["to=hub repository=a/b/c", "to=hub repository=../x", "to=lora check=2", "to=checkpoint private=true"]
    words += [f"to={text}" for text in NASTY]
    return [str(_edited(place)), *rng.choice(words).split(" ")]


@hostile("exports")
def no_run(place, rng):
    return [rng.choice([".", "link", "notes.txt", "absent", "", "x" * 5000]), rng.choice(TO)]


@hostile("exports")
def whole_edit(place, rng):
    """Nothing is wrong with it."""
    return [str(_edited(place)), rng.choice(TO), "check=false"]
