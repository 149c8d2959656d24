"""Damaged and hostile files of every sort that a command reads, each written from scratch into a sandbox."""

import csv
import gzip
import io
import json
import os
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzzing.overrides import FAST, Case
from tests.fuzzing.sandbox import Sandbox

# A real run of seconds.
SMALL = (
    *FAST,
    "edit=erase",
    "granularity=layer",
    "noisy_latents.samples=2",
    "noisy_latents.steps=2",
    "model.steps=2",
    "runtime.device=cpu",
)
SMALL += ("hydra.run.dir=outputs/here",)
# A run that asks a prompt file and stops before torch.
PLANNED = ("tracking=disabled", "judge=none", "evaluation.metrics=[erasure]", "retention_prompts=none", "prompts=i2p")
WEIGHTS = "mini/weights/pipeline"
Make = Callable[[Path, random.Random], list[str] | None]
MAKERS: dict[str, list[tuple[str, Make]]] = {}


class Evil:
    """A pickle that leaves a file `ran` beside the sandbox's folders when it is loaded."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


def hostile(kind: str) -> Callable[[Make], Make]:
    """Register a maker. It writes into the folder that it is given, and may return arguments in place of the usual."""

    def register(make: Make) -> Make:
        MAKERS.setdefault(kind, []).append((make.__name__, make))
        return make

    return register


def _png(width: int = 8, height: int = 8, kind: int = 2, data: bytes | None = None) -> bytes:
    """A PNG made by hand: `kind` is its colour type (2: RGB, 6: RGBA, 0: grey)."""
    channels = {0: 1, 2: 3, 6: 4}[kind]
    raw = b"".join(b"\0" + bytes(range(width * channels)) for _ in range(height)) if data is None else data

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def _pillow(path: Path, mode: str, format: str, **settings: object) -> None:
    from PIL import Image

    Image.new(mode, (12, 8)).save(path, format=format, **settings)


# Folders of images: noisy_latents.images


@hostile("images")
def truncated_png(place, rng):
    (place / "a.png").write_bytes(_png())
    whole = _png(64, 64)
    (place / "b.png").write_bytes(whole[: rng.randrange(40, len(whole) - 14)])


@hostile("images")
def empty_png(place, rng):
    (place / "a.png").write_bytes(b"")


@hostile("images")
def bomb(place, rng):
    (place / "a.png").write_bytes(_png(30_000, 30_000, data=b"\0" * 100))


@hostile("images")
def mac_leftovers(place, rng):
    (place / "a.png").write_bytes(_png())
    (place / "._a.png").write_bytes(b"\0\5\x16\7Mac OS X")


@hostile("images")
def folder_named_png(place, rng):
    (place / "a.png").write_bytes(_png())
    (place / "b.png").mkdir()


@hostile("images")
def text_named_jpg(place, rng):
    (place / "a.jpg").write_text("<html>404</html>")


@hostile("images")
def cmyk_exif(place, rng):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 99  # no orientation that there is
    _pillow(place / "a.JPG", "CMYK", "JPEG", exif=exif)
    _pillow(place / "b.gif", "P", "GIF")
    _pillow(place / "c.tif", "I;16", "TIFF")
    (place / "d.png").write_bytes(_png(kind=6))


@hostile("images")
def dangling_link(place, rng):
    (place / "a.png").symlink_to("nowhere.png")


@hostile("images")
def nothing(place, rng):
    pass


@hostile("images")
def flipped_bytes(place, rng):
    data = bytearray(_png(32, 32))
    for _ in range(10):
        data[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
    (place / "a.png").write_bytes(bytes(data))


@hostile("images")
def odd_names(place, rng):
    for name in ("a\nb.png", "\x1b[31m.png", "é漢.PNG", "'.png", "a\udcff.png"):
        (place / name).write_bytes(_png())


@hostile("images")
def endless_link(place, rng):
    (place / "a.png").symlink_to("a.png")


# Prompt files: prompts.path

HEAD = ("prompt", "sd_seed", "sd_guidance_scale", "sd_image_width", "sd_image_height", "categories")
ROW = ("a person in a bath", "1", "7", "512", "512", "sexual")


def _csv(path: Path, rows: list[tuple], head: tuple = HEAD, encoding: str = "utf-8") -> list[str]:
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    return [f"prompts.path='{path}'"]


def _parquet(path: Path, columns: dict[str, list]) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return [f"prompts.path='{path}'"]


@hostile("prompts")
def nul_bytes(place, rng):
    return _csv(place / "p.csv", [("a\0b", *ROW[1:])])


@hostile("prompts")
def huge_cell(place, rng):
    return _csv(place / "p.csv", [("x" * 200_000, *ROW[1:])])


@hostile("prompts")
def zipped(place, rng):
    _csv(place / "p.csv", [ROW])
    (place / "p.csv.gz").write_bytes(gzip.compress((place / "p.csv").read_bytes()))
    return [f"prompts.path='{place / 'p.csv.gz'}'"]


@hostile("prompts")
def utf16_without_mark(place, rng):
    return _csv(place / "p.csv", [ROW], encoding="utf-16-le")


@hostile("prompts")
def latin1(place, rng):
    return _csv(place / "p.csv", [("café", *ROW[1:])], encoding="latin-1")


@hostile("prompts")
def empty_csv(place, rng):
    (place / "p.csv").write_bytes(b"")
    return [f"prompts.path='{place / 'p.csv'}'"]


@hostile("prompts")
def head_only(place, rng):
    return _csv(place / "p.csv", [])


@hostile("prompts")
def ragged(place, rng):
    return _csv(place / "p.csv", [ROW, ROW[:2], (*ROW, "more")])


@hostile("prompts")
def seed_of_5000_digits(place, rng):
    return _csv(place / "p.csv", [(ROW[0], "9" * 5000, *ROW[2:])])


@hostile("prompts")
def odd_numbers(place, rng):
    odd = ("٣", "-1", "1e3", "nan", "inf", "²", "0", "")
    return _csv(place / "p.csv", [(ROW[0], rng.choice(odd), rng.choice(odd), rng.choice(odd), *ROW[4:]) for _ in odd])


@hostile("prompts")
def open_quote(place, rng):
    (place / "p.csv").write_text(",".join(HEAD) + '\n"a person,1,7,512,512,sexual\n' * 3)
    return [f"prompts.path='{place / 'p.csv'}'"]


@hostile("prompts")
def same_column_twice(place, rng):
    return _csv(place / "p.csv", [(*ROW, "b")], (*HEAD, "prompt"))


@hostile("prompts")
def terminal_escapes(place, rng):
    return _csv(place / "p.csv", [("\x1b[2J\x1b]0;x\x07a person", "x\x1b[31m", *ROW[2:])])


@hostile("prompts")
def not_parquet(place, rng):
    (place / "p.parquet").write_bytes(b"PAR1" + rng.randbytes(200) + b"PAR1")
    return [f"prompts.path='{place / 'p.parquet'}'"]


@hostile("prompts")
def parquet_of_bytes(place, rng):
    columns = {name: [value] for name, value in zip(HEAD, ROW, strict=True)}
    return _parquet(place / "p.parquet", columns | {"prompt": [b"a person"]})


@hostile("prompts")
def parquet_of_lists(place, rng):
    columns = {name: [value] for name, value in zip(HEAD, ROW, strict=True)}
    return _parquet(place / "p.PARQUET", columns | {"prompt": [["a", "person"]], "sd_seed": [{"a": 1}]})


@hostile("prompts")
def folder_named_csv(place, rng):
    (place / "p.csv").mkdir()
    return [f"prompts.path='{place / 'p.csv'}'"]


@hostile("prompts")
def dangling_csv(place, rng):
    (place / "p.csv").symlink_to("p.csv")
    return [f"prompts.path='{place / 'p.csv'}'"]


# Safetensors, written by hand so that odd heads are possible


def safetensors(head: object, data: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


UNET = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"


def _edit(path: Path, header: object, kind: str = "I32", name: str = UNET, values: int = 2) -> list[str]:
    size = {"I32": 4, "F32": 4, "I64": 8, "BOOL": 1}[kind]
    raw = struct.pack(f"<{values}f", *range(values)) if kind == "F32" else b"\1".ljust(size, b"\0") * values
    meta = {"__metadata__": {"cad_exp": header if isinstance(header, str) else json.dumps(header)}}
    path.write_bytes(safetensors(meta | {name: {"dtype": kind, "shape": [values], "data_offsets": [0, len(raw)]}}, raw))
    return [f"model.edits=['{path}']"]


def _meta(**changed: object) -> dict:
    return {"kind": "edit", "version": 1, "meta": {"unit": "column", "factor": 0.0, "meta": {}} | changed}


@hostile("edits")
def factor_list(place, rng):
    return _edit(place / "e.safetensors", _meta(factor=[1, 2]))


@hostile("edits")
def factor_text(place, rng):
    return _edit(place / "e.safetensors", _meta(factor=rng.choice(["nan", "x", None, {}, "1e400"])))


@hostile("edits")
def null_meta(place, rng):
    return _edit(place / "e.safetensors", _meta(meta=None))


@hostile("edits")
def header_is_null(place, rng):
    return _edit(place / "e.safetensors", rng.choice([None, [], "{", 3, {"kind": "edit", "meta": {}}]))


@hostile("edits")
def deep_header(place, rng):
    return _edit(place / "e.safetensors", "[" * 50_000)


@hostile("edits")
def float_indices(place, rng):
    return _edit(place / "e.safetensors", _meta(), "F32")


@hostile("edits")
def same_index_twice(place, rng):
    return _edit(place / "e.safetensors", _meta())


@hostile("edits")
def of_a_convolution(place, rng):
    return _edit(place / "e.safetensors", _meta(), name="conv_in")


@hostile("edits")
def of_a_norm(place, rng):
    return _edit(place / "e.safetensors", _meta(unit="entry"), name="conv_norm_out", values=1)


@hostile("edits")
def of_nothing(place, rng):
    return _edit(place / "e.safetensors", _meta(), name=rng.choice(["", ".", "a.b", "mid_block"]))


@hostile("edits")
def truncated_edit(place, rng):
    path = place / "e.safetensors"
    given = _edit(path, _meta())
    path.write_bytes(path.read_bytes()[: rng.randrange(1, path.stat().st_size - 1)])
    return given


# model.weights


def _weights(path: Path) -> list[str]:
    return [f"model.weights='{path}'"]


@hostile("weights")
def pickle_with_code(place, rng):
    (place / "w.pt").write_bytes(pickle.dumps({"conv_in.weight": Evil(place / "ran")}))
    return _weights(place / "w.pt")


@hostile("weights")
def zip_with_code(place, rng):
    import zipfile

    with zipfile.ZipFile(place / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps(Evil(place / "ran")))
        archive.writestr("w/version", "3\n")
    return _weights(place / "w.pt")


@hostile("weights")
def random_bytes(place, rng):
    (place / "w.pt").write_bytes(rng.choice([b"", b"\x80", b"PK", b"PK\3\4"]) + rng.randbytes(300))
    return _weights(place / "w.pt")


@hostile("weights")
def empty_weights(place, rng):
    (place / "w.safetensors").write_bytes(b"")
    return _weights(place / "w.safetensors")


@hostile("weights")
def endless_header(place, rng):
    (place / "w.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{" + b" " * 50)
    return _weights(place / "w.safetensors")


@hostile("weights")
def wrong_shape(place, rng):
    head = {"conv_in.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    (place / "w.safetensors").write_bytes(safetensors(head, b"\0\0\0\0"))
    return _weights(place / "w.safetensors")


@hostile("weights")
def weights_of_nan(place, rng):
    size = _size("unet/diffusion_pytorch_model.safetensors", "conv_out.bias")
    head = {"conv_out.bias": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}
    (place / "w.safetensors").write_bytes(safetensors(head, struct.pack("<f", float("nan")) * size))
    return _weights(place / "w.safetensors")


@hostile("weights")
def null_head(place, rng):
    (place / "w.safetensors").write_bytes(safetensors(rng.choice([b"{}", b"{null", b'{"a": 1}', b"{" + b"[" * 9000])))
    return _weights(place / "w.safetensors")


@hostile("weights")
def folder_of_weights(place, rng):
    return _weights(place)


# Model folders


def _pipeline() -> Path:
    import cad_exp

    return Path(cad_exp.__file__).parent / WEIGHTS


def _size(file: str, name: str) -> int:
    with open(_pipeline() / file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return json.loads(stream.read(length))[name]["shape"][0]


def _model(place: Path) -> tuple[Path, list[str]]:
    """A copy of the embedded model, its files linked; a maker replaces some of them."""
    folder = place / "model"
    shutil.copytree(_pipeline(), folder, copy_function=os.symlink)
    return folder, ["model=local", f"model.path='{folder}'", "model.judge=null"]


def _replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def _change(file: Path, **changed: object) -> None:
    _replace(file, json.dumps(json.loads(file.read_text()) | changed).encode())


@hostile("models")
def pickled_weights(place, rng):
    folder, given = _model(place)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Evil(place / "ran")))
    return given


@hostile("models")
def custom_code(place, rng):
    folder, given = _model(place)
    _change(folder / "model_index.json", unet=["evil", "Evil"], _class_name=["evil", "Evil"])
    (folder / "evil.py").write_text(f"open({str(place / 'ran')!r}, 'w')\nclass Evil: pass\n")
    shutil.copy(folder / "evil.py", folder / "unet" / "evil.py")
    return given


@hostile("models")
def missing_part(place, rng):
    folder, given = _model(place)
    shutil.rmtree(folder / rng.choice(["unet", "vae", "text_encoder", "tokenizer", "scheduler"]))
    return given


@hostile("models")
def model_of_nan(place, rng):
    folder, given = _model(place)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    _replace(file, bytes(data))
    return given


@hostile("models")
def truncated_model(place, rng):
    folder, given = _model(place)
    file = folder / rng.choice(["unet", "vae"]) / "diffusion_pytorch_model.safetensors"
    _replace(file, file.read_bytes()[: rng.choice([0, 5, 1000, 100_000])])
    return given


@hostile("models")
def index_is_no_json(place, rng):
    folder, given = _model(place)
    _replace(folder / "model_index.json", rng.choice([b"", b"{", b"[]", b"null", b"\xff\xfe{\0}\0", b"[" * 9000]))
    return given


@hostile("models")
def index_without_class(place, rng):
    folder, given = _model(place)
    _replace(folder / "model_index.json", b"{}")
    return given


@hostile("models")
def another_pipeline(place, rng):
    folder, given = _model(place)
    names = ["StableDiffusionImg2ImgPipeline", "Nope", "DDPMPipeline", "StableDiffusionUpscalePipeline", "../x"]
    _change(folder / "model_index.json", _class_name=rng.choice(names))
    return given


@hostile("models")
def odd_unet_config(place, rng):
    folder, given = _model(place)
    odd = [{"sample_size": [8, 16]}, {"sample_size": None}, {"in_channels": 9}, {"cross_attention_dim": "x"}]
    odd += [{"time_cond_proj_dim": 32}, {"down_block_types": []}, {"_class_name": "Nope"}, {"block_out_channels": None}]
    _change(folder / "unet" / "config.json", **rng.choice(odd))
    return given


@hostile("models")
def odd_scheduler(place, rng):
    folder, given = _model(place)
    odd = [{"_class_name": "Nope"}, {"num_train_timesteps": 0}, {"prediction_type": "x"}, {"beta_schedule": "x"}]
    _change(folder / "scheduler" / "scheduler_config.json", **rng.choice(odd))
    return given


@hostile("models")
def odd_tokenizer(place, rng):
    folder, given = _model(place)
    _replace(folder / "tokenizer" / "tokenizer.json", rng.choice([b"", b"{}", b"[]", b"\0\1"]))
    return given


# results.json, for the tables


def _results(place: Path, content: object) -> list[str]:
    for name in ("good", "bad"):
        (place / name).mkdir()
    (place / "good" / "results.json").write_text(json.dumps(_signed(_good())))
    text = content if isinstance(content, bytes) else json.dumps(_signed(content)).encode()
    (place / "bad" / "results.json").write_bytes(text)
    return [str(place)]


def _signed(content: object) -> object:
    """With the checksum that fits, so that what is wrong is met behind it; as it is where none can be made."""
    from cad_exp.reporting import results

    try:
        return results.signed(content)
    except (AttributeError, TypeError, ValueError):
        return content


def _good() -> dict:
    from cad_exp.reporting import results, schema

    values = {"name": "concept_rate", "variant": "edited", "value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    values |= {"higher_is_better": False, "definition": {}, "changes": {}}
    metric = {field: values.get(field) for field in schema.FIELDS}
    config = {"edit": {"factor": 0.0, "ratio": 0.1, "count": None}}
    run = {"config_hash": "0" * 24, "config": config, "seconds": {}, "complete": True, "concept": "church"}
    return {"schema_version": results.SCHEMA_VERSION, "run": run, "metrics": [metric]}


@hostile("results")
def deep_json(place, rng):
    return _results(place, b"[" * 100_000)


@hostile("results")
def integer_of_400_digits(place, rng):
    good = _good()
    good["metrics"][0]["value"] = 10**399
    return _results(place, good)


@hostile("results")
def integer_of_5000_digits(place, rng):
    good = _good()
    good["metrics"][0]["n"] = "DIGITS"
    return _results(place, json.dumps(good).replace('"DIGITS"', "9" * 5000).encode())


@hostile("results")
def wrong_types(place, rng):
    odd = ["text", [1], {"a": 1}, None, True, float("nan"), float("inf"), -1]
    good = _good()
    part = rng.choice([good["metrics"][0], good["run"], good, good["run"]["config"]])
    good["metrics"][0]["value"] = rng.choice(odd)
    part[rng.choice(sorted(part))] = rng.choice(odd)
    return _results(place, good)


@hostile("results")
def lists_for_names(place, rng):
    good = _good()
    good["metrics"][0] |= {"name": ["a"], "variant": {"b": 1}}
    return _results(place, good)


@hostile("results")
def metrics_of_texts(place, rng):
    return _results(place, _good() | {"metrics": rng.choice(["abc", ["abc"], {"a": 1}, None, 3, [None], [[]]])})


@hostile("results")
def escapes(place, rng):
    good = _good()
    good["run"] |= {"concept": "\x1b[31mred\x1b[0m\x07", "granularity": "a|b\nc", "edit": "\u202e"}
    good["metrics"][0]["name"] = "\x1b]0;x\x07"
    return _results(place, good)


@hostile("results")
def odd_bytes(place, rng):
    return _results(place, rng.choice([b"", b"\xff\xfe{}", b"\0", b"null", b"3", b'"x"', b'{"schema_version": NaN}']))


@hostile("results")
def folder_named_results(place, rng):
    given = _results(place, {})
    (place / "dir" / "results.json").mkdir(parents=True)
    (place / "link").mkdir()
    (place / "link" / "results.json").symlink_to("results.json")
    return given


@hostile("results")
def lone_surrogates(place, rng):
    good = _good()
    good["run"]["concept"] = "\ud800"
    return _results(place, good)


# Cache folders


_OURS: dict[Path, list[Path]] = {}


def _cache(place: Path) -> Path:
    """A cache that the program itself has made, with one entry."""
    from cad_exp.pipeline.cache.store import Cache

    def make(folder: Path) -> None:
        (folder / "x.txt").write_text("x")

    Cache(place / "cache").get("images", {"x": 1}, make)
    _OURS[place] = list(place.rglob("*"))
    return place / "cache"


def _prune(folder: Path) -> list[str]:
    return [str(folder), "--prune"]


@hostile("caches")
def foreign_in_cache(place, rng):
    folder = _cache(place)
    (folder / "mine" / "work").mkdir(parents=True)
    (folder / "mine" / "work" / "x.txt").write_text("mine")
    return _prune(folder)


@hostile("caches")
def foreign_in_stage(place, rng):
    folder = _cache(place)
    (folder / "images" / "holiday").mkdir()
    (folder / "images" / "holiday" / "x.txt").write_text("mine")
    return _prune(folder)


@hostile("caches")
def linked_stage(place, rng):
    folder = _cache(place)
    (folder / "noisy_latents").symlink_to(place.parents[3] / "outside" / "precious")
    return _prune(folder)


@hostile("caches")
def linked_entry(place, rng):
    folder = _cache(place)
    (folder / "images" / ("0" * 24)).symlink_to(place.parents[3] / "outside" / "precious" / "entry")
    return _prune(folder)


@hostile("caches")
def foreign_entry_file(place, rng):
    folder = _cache(place)
    (folder / "data" / "raw").mkdir(parents=True)
    odd = ["{}", "[]", "null", '{"stage": "data", "files": {"x": 1}}', "{", "[" * 90_000, '{"files": {"../../x": "0"}}']
    (folder / "data" / "raw" / "entry.json").write_text(rng.choice(odd))
    return _prune(folder)


@hostile("caches")
def odd_entry_listed(place, rng):
    folder = _cache(place)
    [entry] = folder.glob("images/*/entry.json")
    content = json.loads(entry.read_text())
    content[rng.choice(["seconds", "files", "created", "stage"])] = rng.choice([None, "x", [1], {"a": None}, -1])
    entry.write_text(json.dumps(content))
    return [str(folder)]


@hostile("caches")
def odd_drafts(place, rng):
    folder = _cache(place)
    for name in ("x", "a-b", "a-b-c", "host--1-x", "mine-99999999999999999999-x"):
        (folder / ".drafts" / name).mkdir(parents=True, exist_ok=True)
    return _prune(folder)


@hostile("caches")
def link_loop(place, rng):
    folder = _cache(place)
    (folder / "loop").symlink_to(".")
    return _prune(folder)


@hostile("caches")
def broken_used_by_run(place, rng):
    folder = _cache(place)
    [entry] = folder.glob("images/*/entry.json")
    entry.write_text(rng.choice(["", "[]", "[" * 90_000]))
    return [str(folder), "--damaged"]


# YAML of --config-dir


def _option(place: Path, content: bytes, *more: str) -> list[str]:
    (place / "own" / "concept").mkdir(parents=True)
    (place / "own" / "concept" / "teapot.yaml").write_bytes(content)
    return ["--config-dir", str(place / "own"), *(more or ("concept=teapot",))]


@hostile("options")
def syntax_error(place, rng):
    return _option(place, rng.choice([b"a: [1\n", b"a: b: c\n", b"\tname: x\n", b"- a\nb: c\n", b"a: 'x\n", b"%x\n"]))


@hostile("options")
def yaml_tag(place, rng):
    evil = f"name: !!python/object/apply:os.system ['touch {place / 'ran'}']\n".encode()
    return _option(place, rng.choice([evil, b"name: !mine x\n", b"name: !!binary x\n", b"name: !!set {a}\n"]))


@hostile("options")
def aliases(place, rng):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcd", "bcde", strict=True)]
    return _option(place, "\n".join(lines).encode())


@hostile("options")
def utf16_yaml(place, rng):
    return _option(place, "name: teapot\n".encode(rng.choice(["utf-16", "utf-16-le", "utf-32"])))


@hostile("options")
def latin1_yaml(place, rng):
    return _option(place, "# ein Café\nname: café\n".encode("latin-1"))


@hostile("options")
def yaml_is_no_mapping(place, rng):
    return _option(place, rng.choice([b"3\n", b"[a]\n", b"x\n", b"", b"null\n", b"---\na: 1\n---\nb: 2\n", b"\0"]))


@hostile("options")
def defaults_loop(place, rng):
    odd = [b"defaults: [teapot]\n", b"defaults: x\n", b"defaults: [nope]\n", b"defaults: [{a: {b: 1}}]\n"]
    return _option(place, rng.choice(odd) + b"name: teapot\n")


@hostile("options")
def concept_without_keys(place, rng):
    return _option(place, rng.choice([b"name: teapot\n", b"prompt: a teapot\n", b"name: 3\nkind: object\n"]))


@hostile("options")
def interpolation_loop(place, rng):
    return _option(place, rng.choice([b"name: ${.name}\n", b"name: ${concept.x}\nx: ${concept.name}\n", b"name: ${\n"]))


@hostile("options")
def help_of_bad_yaml(place, rng):
    return _option(place, rng.choice(["é".encode("latin-1"), b"# \x1b[31mred\n", b"# @package _global_"]), "--help")


@hostile("options")
def option_is_a_folder(place, rng):
    (place / "own" / "concept" / "teapot.yaml").mkdir(parents=True)
    return ["--config-dir", str(place / "own"), "concept=teapot"]


@hostile("options")
def pickled_rerun(place, rng):
    """Hydra's --experimental-rerun unpickles what it is given."""
    (place / "config.pickle").write_bytes(pickle.dumps(Evil(place / "ran")))
    return ["--experimental-rerun", str(place / "config.pickle")]


# Folders of runs


def _run_in(folder: Path | str) -> list[str]:
    return [f"hydra.run.dir='{folder}'"]


@hostile("runs")
def foreign_project(place, rng):
    return _run_in(".")


@hostile("runs")
def folder_with_pictures(place, rng):
    (place / "images").mkdir()
    (place / "images" / "cat.png").write_bytes(_png())
    (place / ".env").write_text("SECRET=1")
    return _run_in(place)


@hostile("runs")
def linked_run_folder(place, rng):
    (place / "here").symlink_to(place.parents[3] / "outside" / "precious")
    return _run_in(place / "here")


@hostile("runs")
def linked_images(place, rng):
    (place / "images").symlink_to(place.parents[3] / "outside" / "precious")
    return _run_in(place)


@hostile("runs")
def damaged_results(place, rng):
    odd = [b"", b"{", b"[]", b"null", b'{"mine": 1}', b"\xff\xfe", b"[" * 90_000]
    (place / "results.json").write_bytes(rng.choice(odd))
    return _run_in(place)


@hostile("runs")
def hostile_manifest(place, rng):
    good = _good()
    good["run"]["files"] = rng.choice([{"../../project/notes.txt": 5}, ["../notes.txt"], None, {"/etc/passwd": 1}, 3])
    (place / "results.json").write_text(json.dumps(_signed(good)))
    _OURS[place] = [place / "results.json"]
    return _run_in(place)


@hostile("runs")
def results_is_a_folder(place, rng):
    (place / "results.json" / "mine").mkdir(parents=True)
    return _run_in(place)


@hostile("runs")
def lock_is_a_folder(place, rng):
    (place / ".lock").mkdir()
    return _run_in(place)


@hostile("runs")
def error_of_somebody(place, rng):
    (place / "error.json").write_bytes(rng.choice([b"", b"[]", b'{"a": 1}', b"\xff"]))
    _OURS[place] = [place / "error.json"]
    return _run_in(place)


@hostile("runs")
def sweep_with_odd_errors(place, rng):
    for name, content in (("a", b""), ("b", b"[]"), ("c", b'{"error": 3}'), ("d", b"\xff")):
        (place / name).mkdir()
        (place / name / "error.json").write_bytes(content)
    _OURS[place] = list(place.rglob("*"))
    return ["-m", f"hydra.sweep.dir='{place}'", "seed=1"]


# What a file of each class is given to.
COMMANDS: dict[str, dict] = {
    "images": {"arguments": (*SMALL, "objective=amplify"), "real": True},
    "prompts": {"arguments": PLANNED},
    "edits": {"arguments": SMALL, "real": True},
    "weights": {"arguments": SMALL, "real": True},
    "models": {"arguments": SMALL, "real": True},
    "results": {"arguments": (), "module": "cad_exp tables"},
    "caches": {"arguments": (), "module": "cad_exp cache"},
    "options": {"arguments": FAST},
    "runs": {"arguments": SMALL[:-1], "real": True},
    "reports": {"arguments": (), "module": "cad_exp report"},
    "exports": {"arguments": (), "module": "cad_exp export", "real": True},
    "loras": {"arguments": SMALL, "real": True},
    "singles": {"arguments": SMALL, "real": True},
}


def generate(number: int, seed: int) -> Iterator[Case]:
    """So many cases, the classes in turn; each class in an order that the seed draws."""
    from tests.fuzzing import checkpoints, finished  # noqa: F401  (they register their makers)

    rng = random.Random(seed)
    order = {kind: rng.sample(makers, len(makers)) for kind, makers in sorted(MAKERS.items())}
    kinds = rng.sample(sorted(order), len(order))
    for turn in range(number):
        kind, lap = kinds[turn % len(kinds)], turn // len(kinds)
        name, make = order[kind][lap % len(order[kind])]
        yield _case(kind, name, make, rng.randrange(2**32))


def _case(kind: str, name: str, make: Make, seed: int) -> Case:
    def setup(sandbox: Sandbox) -> list[str]:
        place = sandbox.work / "given"
        place.mkdir()
        given = make(place, random.Random(seed))
        sandbox.ours = {os.path.relpath(path, sandbox.root) for path in _OURS.pop(place, [])}
        return [f"noisy_latents.images='{place}'"] if given is None else given

    settings = COMMANDS[kind]
    return Case(
        kind,
        tuple(settings["arguments"]),
        own=True,
        module=settings.get("module", "cad_exp"),
        note=name,
        setup=setup,
        real=settings.get("real", False),
    )
