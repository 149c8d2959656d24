"""Where the file of a prompt set is: a given path, the folder of CAD_EXP_PROMPTS, or the Hugging Face hub. Reads none.

Apart from `cad_exp.data.prompts`, which reads them, because the identity of a run needs no more than this.
"""

import os
from pathlib import Path
from typing import Any

from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.paths import resolve

FOLDER = "CAD_EXP_PROMPTS"  # environment variable: a folder with prompt files, so that configs need no paths
SUFFIXES = (".csv", ".parquet", ".csv.gz", ".tsv")
PATIENCE = 10  # seconds for the hub's answer
GROUPS = ("prompts", "retention_prompts")  # of the config, in which a prompt set may be chosen


def files(config: dict[str, Any]) -> list[Path]:
    """Return the files of all prompt sets that a run's config names. UserError where one is missing."""
    return [locate(config[group], group) for group in GROUPS if "columns" in (config.get(group) or {})]


def locate(settings: dict[str, Any], group: str = "prompts") -> Path:
    """Return the file of one prompt set; from the hub, it is downloaded unless the hub's own cache holds it.

    settings: of an option of the config group `prompts` (or `retention_prompts`, as `group` says). UserError if it is
    missing.
    """
    for key in ("path", "file", "hub", "revision"):
        if isinstance(settings[key], (list, dict)):
            raise UserError(f"{group}.{key} must be one text, not {settings[key]}")
    settings = settings | {key: str(settings[key]) for key in ("path", "file", "revision") if settings[key] is not None}
    if settings["path"]:
        file = resolve(settings["path"])
        if not os.path.isfile(file):
            raise UserError(f"there is no prompt file '{settings['path']}': give {group}.path=FILE (CSV or parquet)")
        return file
    folder, names = os.environ.get(FOLDER), [settings["file"], *(settings["name"] + suffix for suffix in SUFFIXES)]
    places: list[Path] = [resolve(folder) / name for name in names if name] if folder else []
    for place in places:
        if os.path.isfile(place):
            return place
    if settings["hub"]:
        return _from_hub(settings, group)
    raise UserError(
        f"{group}={settings['name']} needs its file: give {group}.path=FILE, or put {names[0] or names[1]} into a "
        f"folder and its name into the environment variable {FOLDER}"
    )


def _from_hub(settings: dict[str, Any], group: str) -> Path:
    """Return the file of a hub data set: what was downloaded before, else what the hub gives.

    UserError within seconds.
    """
    hub, revision, name = settings["hub"], settings["revision"], settings["file"]
    held = _downloaded(hub, revision, name)
    if held is not None:
        return held
    from huggingface_hub import HfApi, hf_hub_download

    try:  # asked first, because a download is tried again and again before it is given up
        info = HfApi().dataset_info(hub, revision=revision, timeout=PATIENCE)
        tables = [each.rfilename for each in info.siblings or [] if each.rfilename.endswith(SUFFIXES)]
        if name or len(tables) == 1:
            return Path(hf_hub_download(hub, name or tables[0], repo_type="dataset", revision=info.sha))
    except Exception as error:  # offline, refused, gated, gone: the library has a dozen classes for it
        raise UserError(
            f"the data set {hub} cannot be fetched ({reason_of(error, 100)}): download its file from "
            f"https://huggingface.co/datasets/{hub} (sign in and accept its conditions if it asks for it) "
            f"and give {group}.path=FILE"
        ) from error
    raise UserError(f"{hub} holds {len(tables)} tables: choose one by {group}.file=... ({', '.join(tables)})")


def _downloaded(hub: str, revision: str | None, name: str | None) -> Path | None:
    """Return the file in the hub's own cache, if it is there; without a name, the only table there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception:  # whatever keeps it from being found, it has to be downloaded
        return None
    found = [file for file in folder.rglob("*") if file.name.endswith(SUFFIXES)]
    found = [file for file in found if not name or file == folder / name]
    return found[0] if len(found) == 1 else None
