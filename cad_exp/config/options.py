"""The groups of the config and the options of each, as the YAML files name them."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cad_exp.utils.errors import UserError

GROUPS = {
    "model": "the text-to-image model to look into",
    "concept": "what to find in it",
    "granularity": "the kind of component that gets a score",
    "probes": "the noisy images at which the model is asked",
    "objective": "what counts as showing the concept",
    "estimator": "how a component's score is computed",
    "edit": "what to do with the components found",
    "prompts": "the prompts of the images that show the concept",
    "others": "the prompts of the images that should stay as they are",
    "evaluation": "what to measure afterwards",
    "judge": "who says what the images show",
    "tracking": "where the results are mirrored",
    "runtime": "device, precision, threads",
    "experiment": "a whole study, with -m: its settings and what it sweeps over",
}
# Hydra's plugins behind hydra/launcher=..., by the name under which they register themselves.
LAUNCHERS = {"joblib": "workers", "submitit_local": "submitit", "submitit_slurm": "slurm", "ray": "cluster"}


def conf_folder() -> Path:
    """The configs: inside the package when it was installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).resolve().parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def exist(folders: Iterable[Path]) -> None:
    """UserError for a folder of --config-dir that is not there."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"there is no folder '{folder}' with options of your own (--config-dir)")


def options(group: str, folders: Iterable[Path]) -> dict[str, str]:
    """The options of a group, each with the first comment of its file; a leading underscore means shared parts."""
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
    """ "unknown concept 'nudty': did you mean nudity? There are: ..." """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (
        f"unknown {what} '{name}'"
        + (f": did you mean {close[0]}?" if close else ".")
        + (f" There are: {', '.join(known)}" if known else " There are none")
    )
