"""The groups of the config and the options of each, as the YAML files name them."""

import os
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from cad_exp.utils import registry
from cad_exp.utils.errors import UserError, closest

GROUPS = {
    "task": "what the run asks: which components make a concept, or what layers know",
    "model": "the text-to-image model to look into",
    "concept": "what to find in it",
    "granularity": "the kind of component that gets a score",
    "noisy_latents": "the noisy images at which the model is asked",
    "objective": "what counts as showing the concept",
    "estimator": "how a component's score is computed",
    "edit": "what to do with the components found",
    "prompts": "the prompts of the images that show the concept",
    "retention_prompts": "the prompts of the images that should stay as they are",
    "evaluation": "what to measure afterwards",
    "judge": "who says what the images show",
    "images": "task=probe, task=sae, task=analyse: the labelled images",
    "activations": "task=probe, task=analyse: where and when the network is looked at",
    "probe": "task=probe: the classifier that reads activations",
    "tokens": "task=sae: the activations that sparse autoencoders learn from",
    "sae": "task=sae: the sparse autoencoders",
    "analysis": "task=analyse: one look at what a model represents",
    "tracking": "where the results are mirrored",
    "runtime": "device, precision, threads",
    "experiment": "a whole study, with -m: its settings and what it sweeps over",
}
# Hydra's plugins behind hydra/launcher=..., by the name under which they register themselves.
LAUNCHERS = {"joblib": "workers", "submitit_local": "submitit", "submitit_slurm": "slurm", "ray": "cluster"}


def conf_folder() -> Path:
    """Return the folder of the configs: in the package if installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).resolve().parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def groups(folder: Path) -> list[str]:
    """Return the config groups of a folder, `hydra/launcher` among them."""
    places = [*folder.glob("*/"), *folder.glob("hydra/*/")]
    return sorted(place.relative_to(folder).as_posix() for place in places if any(place.glob("[!_]*.yaml")))


@cache
def _plugins() -> tuple[tuple[Path, str], ...]:
    """Return (folder, package and version) of every installed package's options; the folder is "" where it is lost.

    A package names its folder as a module, by an entry point of the group `cad_exp.conf`.
    """
    found = []
    for point in registry.points("conf"):
        try:
            spec = find_spec(point.value)
        except (ImportError, ValueError):
            spec = None
        for place in (spec.submodule_search_locations or [] if spec else []) or [""]:
            found.append((Path(place), registry.package(point)))
    return tuple(found)


def installed() -> list[Path]:
    """Return the folders with options of installed packages, each like conf/ of this one."""
    return [folder for folder, _ in _plugins() if folder.is_absolute()]


def origin(folder: Path) -> str:
    """Return whose options a folder holds: this package's, an installed package's, or a person's own."""
    if folder == conf_folder():
        return "cad_exp"
    return dict(_plugins()).get(folder, f"--config-dir {folder}")


def faults() -> list[str]:
    """Return a sentence for each installed package whose options cannot be used, or have names of ours."""
    told = [
        f"the options of {package} are not where it says (entry point cad_exp.conf): install it again"
        for folder, package in _plugins()
        if not folder.is_absolute()
    ]
    for folder in installed():
        for group in groups(folder):
            ours = options(group, [conf_folder()])
            told += [
                f"{group}={name} of {origin(folder)} has the name of an option of cad_exp, which is used instead"
                for name in options(group, [folder])
                if name in ours
            ]
    return told


def exist(folders: Iterable[Path]) -> None:
    """Raise UserError for a folder of --config-dir that is not there."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"there is no folder '{folder}' with options of your own (--config-dir)")


def options(group: str, folders: Iterable[Path]) -> dict[str, str]:
    """Return the options of a group, each with the first comment of its file.

    Files whose name starts with an underscore are shared parts, and no options.
    """
    files = sorted(file for folder in folders for file in (folder / group).glob("[!_]*.yaml") if file.is_file())
    comments = {file.stem: _first_comment(file) for file in files}

    def kind(option: str) -> str:  # "object: church" stands with the other objects
        return "".join(re.findall(r"^\w+(?=:)", comments[option]))

    return {option: comments[option] for option in sorted(comments, key=kind)}


def _first_comment(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # said when it is used; the others' comments are shown meanwhile
        return "(cannot be read)"
    # Hydra's own word for where the file's values go; the comment is the next line
    first = next((line for line in lines[:2] if not line.startswith("# @package")), "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def unknown(name: str, known: list[str], what: str) -> str:
    """Write an error such as "unknown concept 'nudty': did you mean nudity? There are: ..."."""
    close = closest(name, known)
    return (
        f"unknown {what} '{name}'"
        + (f": did you mean {close}?" if close else ".")
        + (f" There are: {', '.join(known)}" if known else " There are none")
    )
