"""What diffusers reads of a model's folder: which components, which of their weights. Loads nothing, and no torch.

A component may lie there several times: whole, in shards, as `model.fp16.safetensors`, as `pytorch_model.bin`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.paths import listing

INDEX = "model_index.json"
_STEMS = ("diffusion_pytorch_model", "pytorch_model", "model")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_FORMATS = ("safetensors", "bin")  # the first goes before the second
_FOREIGN = (".msgpack", ".h5", ".ot", ".onnx", ".onnx_data", ".xml", ".md", ".py")  # of other programs, or for people
_NETWORKS = ("unet", "transformer", "vae", "text_encoder")  # components whose names begin so have weights
_PREFERRED = ("fp16", "bf16")  # among variants


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of model_index.json. UserError if it is no description of a pipeline."""
    index = read_config(folder / INDEX)
    if not isinstance(index.get("_class_name"), str):
        raise UserError(f"'{folder / INDEX}' names no pipeline of diffusers (_class_name): save the model again")
    return index


def left_out(index: dict[str, Any]) -> dict[str, Any]:
    """Return what `from_pretrained` needs to leave out parts of a pipeline whose model_index.json is given.

    The safety checker, which would blacken images that are to be judged; T5, where a Stable Diffusion 3 has none.
    """
    if index.get("_class_name") == "StableDiffusion3Pipeline":
        third = ("text_encoder_3", "tokenizer_3")
        return {name: None for name in third if index.get(name) in (None, [None, None])}
    return {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}


def components(index: dict[str, Any]) -> list[str]:
    """Return the names of the parts that are loaded, each from the folder of its name."""
    without = left_out(index)
    parts = [name for name, value in index.items() if isinstance(value, list) and len(value) == 2 and value[0]]
    return sorted(name for name in parts if name not in without)


def config_files(folder: Path) -> list[Path]:
    """Return the files of a folder that describe its model: all that loading reads of it but the weights."""
    return [file for file in files(folder) if not _weights(file.name)]


def files(folder: Path) -> list[Path]:
    """Return the files that loading a model reads, in order: its index, and of each component what is not another's.

    Weights of another variant or format do not count, nor hidden files, nor what lies beside the components.
    """
    chosen, found = variant(folder), [folder / INDEX]
    for name in components(read_index(folder)):
        found += network_files(folder / name, chosen)
    return found


def variant(folder: Path) -> str | None:
    """Return the variant of the weights to load (`fp16`): None where every component has weights without one.

    Raises UserError where no single variant serves all components.
    """
    only: list[set[str]] = []
    for name in components(read_index(folder)):
        there = {kind[0] for file in _inside(folder / name) if (kind := _weights(file.name))}
        if there and None not in there:
            only.append({one for one in there if one is not None})
    if not only:
        return None
    shared = set.intersection(*only)
    if not shared:
        given = ", ".join(sorted(set.union(*only)))
        raise UserError(f"the model folder '{folder}' holds weights of several variants ({given}), none of them whole")
    return min(shared, key=lambda name: (name not in _PREFERRED, name != "fp16", name))


def network_files(place: Path, chosen: str | None = None) -> list[Path]:
    """Return the files of one component or network: the weights of a variant in one format, and what describes them.

    chosen: the variant; a component that lacks it is loaded without one.
    """
    weights: dict[str | None, dict[str, list[Path]]] = {}
    others = []
    for file in _inside(place):
        kind = _weights(file.name)
        if kind:
            weights.setdefault(kind[0], {}).setdefault(kind[1], []).append(file)
        elif file.suffix.lower() not in _FOREIGN:
            others.append(file)
    by_format = weights.get(chosen) or weights.get(None) or {}
    return sorted(others + next((by_format[name] for name in _FORMATS if name in by_format), []))


def check(folder: Path, resolution: int | None = None, weights: bool = True) -> None:
    """Raise UserError, before anything is loaded, for a folder that is incomplete or no text-to-image model's.

    resolution: of `model.resolution`, which is needed where the model's own images are not square. weights: whether
    the folder has to hold them; one that only describes a single file has not.
    """
    index = read_index(folder)
    parts = components(index)
    for name in parts:
        if not _inside(folder / name):
            raise UserError(f"the model folder '{folder}' is incomplete: {INDEX} names '{name}', which is not there")
        if weights and name.startswith(_NETWORKS):
            _check_weights(folder / name, variant(folder))
    denoiser = next((name for name in ("unet", "transformer") if name in parts), None)
    if denoiser:
        _check_denoiser(folder, denoiser, resolution)


def not_square(size: Any, scale: int, name: str) -> UserError:
    """Make the error for a model whose own images, `size` (height, width) in latent pixels, are not square."""
    height, width = (int(side) * scale for side in size)
    return UserError(
        f"'{name}' was made for images of {height} x {width} pixels (height x width), and here they are square: "
        f"give model.resolution={min(height, width)} for square ones"
    )


def _inside(place: Path) -> list[Path]:
    return listing(place) if place.is_dir() else []


def _weights(name: str) -> tuple[str | None, str] | None:
    """Return (variant, format) of a file of weights, or of the index of its shards; None for another file."""
    stem, *parts = name.split(".")
    parts = [_SHARD.sub("", part) for part in parts if part not in ("index", "json")]
    kinds = [part for part in parts if part in _FORMATS]
    if _SHARD.sub("", stem) not in _STEMS or len(kinds) != 1 or len(parts) > 2:
        return None
    return next((part for part in parts if part not in _FORMATS), None), kinds[0]


def _check_weights(place: Path, chosen: str | None) -> None:
    """Raise UserError if a network lacks weights or shards, or links to weights that were not fetched."""
    there = [file for file in network_files(place, chosen) if _weights(file.name)]
    if not there:
        raise UserError(f"the model folder '{place.parent}' is incomplete: '{place.name}' holds no weights")
    for file in there:
        if file.suffix == ".json":
            named = read_config(file).get("weight_map", {}).values()
            lacking = sorted({shard for shard in named if not (place / str(shard)).is_file()})
            if lacking:
                raise UserError(f"the model folder '{place.parent}' is incomplete: '{place / lacking[0]}' is missing")
        elif file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            raise UserError(f"'{file}' only stands for its weights: fetch them with `git lfs pull`")


def _check_denoiser(folder: Path, name: str, resolution: int | None) -> None:
    """Raise UserError for a network that does not make square images of text alone."""
    config, vae = read_config(folder / name / "config.json"), folder / "vae" / "config.json"
    autoencoder = read_config(vae) if vae.is_file() else {}
    latents, taken = autoencoder.get("latent_channels"), config.get("in_channels")
    if name == "unet" and latents and taken and latents != taken:
        raise UserError(
            f"the model '{folder}' takes {taken} channels where its latents have {latents}: it is for inpainting or "
            "another task, give a text-to-image model"
        )
    size = config.get("sample_size")
    needed = name == "unet" or "sample_size" in config  # a FLUX transformer has none
    if resolution is None and needed and not _is_size(size):
        raise UserError(
            f"'{folder / name / 'config.json'}' does not say for which size it was made (sample_size={size!r}): "
            "give model.resolution=..."
        )
    if resolution is None and isinstance(size, list) and len(set(size)) > 1:
        scale = 2 ** (len(autoencoder.get("block_out_channels", [1])) - 1)
        raise not_square(size, scale, str(folder))


def _is_size(size: Any) -> bool:
    """Return whether it is a side, or height and width, in latent pixels."""
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    return all(type(side) is int and side > 0 for side in sides)


def read_config(file: Path) -> dict[str, Any]:
    """Return what a JSON file of a model folder describes. UserError if it is damaged or something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{file}' cannot be read ({reason_of(error)}): fetch or save the model again") from error
    if not isinstance(content, dict):
        raise UserError(f"'{file}' does not describe a model: fetch or save the model again")
    return content
