"""Where the weights of the real judges are: a file that the config names, the package that ships them, or a cache.

Nothing here imports torch or loads a network: a run that is already finished is recognised in a moment.
"""

from __future__ import annotations

import ast
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cad_exp.attribution.objectives import OBJECTIVES
from cad_exp.data import metric_registry, prompts
from cad_exp.data.image_folder import images_digest
from cad_exp.models.model_folder import network_files
from cad_exp.utils.errors import UserError, choose
from cad_exp.utils.hashing import file_digest, files_digest
from cad_exp.utils.paths import resolve
from cad_exp.utils.registry import chosen

CLIP_MODELS = {  # name -> hub id, commit and the file of weights there
    "ViT-B/32": ("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", "pytorch_model.bin"),
    "ViT-L/14": ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "model.safetensors"),
}
CLIP_FILES: tuple[str, ...] = ("config.json", "preprocessor_config.json", "vocab.json", "merges.txt")
CLIP_FILES += ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # all beside the weights


class Missing(UserError):
    """Weights or a package that are not on this machine; the message is what gets them."""


@dataclass(frozen=True)
class Part:
    """One real judge: what it is for, the packages that it needs, and the file of weights that PyTorch's hub caches."""

    use: str
    packages: tuple[str, ...] = ()
    file: str | None = None
    url: str | None = None


PARTS = {
    "nudenet": Part("exposed parts of the body", ("nudenet", "onnxruntime")),
    "resnet": Part(
        "the 1,000 ImageNet classes",
        file="resnet50-11ad3fa6.pth",
        url="https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    ),
    "clip": Part("the CLIP score"),
    "inception": Part(
        "FID and KID",
        ("torch_fidelity",),
        file="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
    ),
    "lpips": Part(
        "LPIPS",
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
}
OF_KIND = {"nudity": "nudenet", "object": "resnet", "style": "lpips"}  # who judges a concept of a kind
FOR = {"features": "inception", "clip": "clip", "distance": "lpips", "logits": "resnet"}  # who answers what is asked


def wanted(config: dict[str, Any]) -> list[str]:
    """Return the parts of PARTS that a resolved config's metrics and objective ask something of, in their order.

    Raises UserError where `judge.parts` leaves out all of them.
    """
    chosen = [choose(name, PARTS, "part of judge=real") for name in config["judge"]["parts"]]
    asked = _asked(config)
    if asked and not asked & set(chosen):
        raise UserError(f"judge.parts leaves out all that these metrics need: {', '.join(sorted(asked))}")
    return [name for name in PARTS if name in asked and name in chosen]


def _asked(config: dict[str, Any]) -> set[str]:
    """Return the parts that the metrics and the objective ask something of, wanted or not."""
    needs, kind = asked_of_judge(config), config["concept"]["kind"]
    asked = {FOR.get(need) for need in needs} | ({OF_KIND.get(kind)} if "label" in needs else set())
    if "labels" in needs:
        kinds = {request.kind for request in prompts.plan(config) if request.purpose == "retention"}
        # Beside a style the distance of the other styles is asked for; nobody names styles or clothed persons.
        asked |= {OF_KIND.get(other) for other in kinds if other != "style" or kind == "style"}
    return {part for part in asked if part}


def asked_of_judge(config: dict[str, Any]) -> set[str]:
    """Return what the metrics, the objective and the study of images ask of the judge (data/metric_registry.py).

    "logits": its log-odds of the concept's label, differentiable.
    """
    needs, objective = metric_registry.asked(config["evaluation"]["metrics"]), config["objective"]
    if objective["name"] != "none":
        needs |= set(OBJECTIVES.fact(chosen(objective), "asks"))
    return needs | ({"label"} if (config["evaluation"].get("fidelity") or {}).get("images") else set())


def locate(name: str, settings: dict[str, Any]) -> Path:
    """Return the file (CLIP: the folder) of a part's weights.

    settings: the part's own, of the config's group `judge`. Raises Missing, which says how to get them.
    Raises UserError for a wrong path.
    """
    part, given = PARTS[name], settings["weights"]
    place, get = (_given(name, given), None) if given else _sought(name, part, settings)
    packages = [package for package in part.packages if find_spec(package) is None]
    steps = [f"`pip install 'cad-exp[judges]'` for the package {' and '.join(packages)}"] if packages else []
    steps += [get] if get else []
    if steps or place is None:
        raise Missing(f"{name} ({part.use}): {'; '.join(steps)}")
    return place


def _given(name: str, given: str) -> Path:
    """Return the weights that the config names."""
    place = resolve(given)
    if not os.path.isfile(place / "config.json" if name == "clip" else place):
        what = "a folder of a transformers CLIP model (with config.json)" if name == "clip" else "a file"
        raise UserError(f"judge.{name}.weights: '{given}' is not {what}")
    return place


def _sought(name: str, part: Part, settings: dict[str, Any]) -> tuple[Path | None, str | None]:
    """Return where the weights are or belong, and the command that gets them if they are not there."""
    if name == "nudenet":
        package = find_spec("nudenet")
        return (Path(package.origin).parent / "320n.onnx" if package and package.origin else None), None
    return _clip(settings["model"]) if name == "clip" else _cached(name, part)


def _cached(name: str, part: Part) -> tuple[Path, str | None]:
    """Return a file of PyTorch's hub cache, whose name ends in the first digits of its SHA-256."""
    assert part.file is not None and part.url is not None
    cache = resolve(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    file = resolve(os.environ.get("TORCH_HOME", cache)) / "hub" / "checkpoints" / part.file
    begin = file.stem.rpartition("-")[2]
    if file.is_file() and file_digest(file).startswith(begin):
        return file, None
    broken = f"'{file}' is damaged or was not loaded to its end; " if file.is_file() else ""
    get = shlex.join(["curl", "-fL", "--create-dirs", "-o", str(file), part.url])
    return file, f"{broken}`{get}`, or judge.{name}.weights=FILE"


def _clip(model: str) -> tuple[Path | None, str | None]:
    """Return the folder of a CLIP model in the cache of the Hugging Face hub."""
    from huggingface_hub import try_to_load_from_cache

    hub, revision, file = CLIP_MODELS[choose(model, CLIP_MODELS, "CLIP model")]
    found = [try_to_load_from_cache(hub, name, revision=revision) for name in ("config.json", "vocab.json", file)]
    files = [each for each in found if isinstance(each, str)]
    if len(files) == len(found):
        return Path(files[0]).parent, None
    get = shlex.join(["hf", "download", hub, *CLIP_FILES, file, "--revision", revision])
    return None, f"`{get}` ({model}), or judge.clip.weights=FOLDER"


def at_hand(settings: dict[str, Any], names: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return where the weights of these parts are, and for those that are missing what to do.

    With `judge.missing: refuse` one UserError names all that is missing; with `skip` what is there does without it,
    unless nothing is. A path that the config gives must be right in any case.
    """
    choose(settings["missing"], ("refuse", "skip"), "answer to judge.missing")
    found, lacking = {}, {}
    for name in names:
        try:
            found[name] = locate(name, settings[name])
        except Missing as error:
            lacking[name] = str(error)
    if lacking and (settings["missing"] == "refuse" or not found):
        skip = f"judge.missing=skip measures with {', '.join(found)} alone; " if found else ""
        head = f"of the judges that these metrics need, {len(lacking)} of {len(names)} are not on this machine:\n  "
        tail = f"\nwithout them: {skip}judge=none makes the images and measures nothing"
        raise UserError(head + "\n  ".join(lacking.values()) + tail)
    return found, lacking


def weights_digest(place: Path) -> str:
    """Hash a part's weights: the file, or what is read of the folder."""
    return (files_digest(place, network_files(place)) if place.is_dir() else file_digest(place))[:16]


def version(package: str) -> str:
    """Return name and version of an installed package: `nudenet 3.4.2`."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} (version unknown)"


def parts_identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return what the real judges of a resolved config are.

    That is their weights, their reference and the packages that run them.
    """
    settings = config["judge"]
    # What is missing makes another identity and no error here: `ready` says so, after it has asked for the model.
    found = {}
    for name in wanted(config):
        with suppress(Missing):
            found[name] = locate(name, settings[name])
    packages = [version(package) for name in found for package in PARTS[name].packages]
    reference = reference_digest(settings["inception"]["reference"]) if "inception" in found else None
    return {"weights": {n: weights_digest(p) for n, p in found.items()}, "packages": packages, "reference": reference}


def reference_place(reference: str) -> Path:
    """Return where FID's reference is: a folder of images or a file of statistics. UserError if it is neither."""
    place = resolve(reference)
    if os.path.isdir(place) or (os.path.isfile(place) and place.suffix == ".npz"):
        return place
    raise UserError(
        f"judge.inception.reference: '{reference}' is neither a folder of images nor an .npz file with mu and sigma"
    )


def reference_digest(reference: str | None) -> str | None:
    """Hash FID's reference, None without one. UserError if it is neither a folder nor a file of statistics."""
    if reference is None:
        return None
    place = reference_place(reference)
    return images_digest(place, "judge.inception.reference") if place.is_dir() else file_digest(place)[:24]


def imagenet_classes() -> list[str] | None:
    """Read torchvision's names of the 1,000 classes from its source; None where they are not found there."""
    package = find_spec("torchvision")
    place = Path(package.origin).parent / "models" / "_meta.py" if package and package.origin else None
    if place is None or not place.is_file():
        return None
    for node in ast.parse(place.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign):
            continue
        if "_IMAGENET_CATEGORIES" in [getattr(target, "id", "") for target in node.targets]:
            return list(ast.literal_eval(node.value))
    return None
