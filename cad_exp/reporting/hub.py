"""An edit on the Hugging Face hub: its file, with a model card that says what it is and what it did."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from cad_exp.interventions.edit import Edit
from cad_exp.interventions.load_edit import FILE, edit_file
from cad_exp.models.sources import HUB_ID
from cad_exp.reporting import results
from cad_exp.reporting.edit_card import card
from cad_exp.utils.errors import UserError, reason_of


def push_edit(source: str | Path, repository: str, private: bool = False, api: Any = None) -> str:
    """Upload an edit with its card, so that `cad_exp.load_edit(pipe, repository)` applies it.

    Args:
        source: the folder of a finished run, whose metrics go into the card; or an edit file.
        repository: `owner/name`, made if it is not there.
        private: whether a new repository is.
        api: a huggingface_hub.HfApi; None makes one, with the login of `hf auth login`.

    Returns:
        The address of the upload.

    Raises:
        UserError: there is no edit or no valid id, the run is not finished, or the hub refuses.
    """
    if not HUB_ID.fullmatch(repository):
        raise UserError(f"'{repository}' is no id of the hub: give owner/name")
    file, place = edit_file(source), Path(source)
    told = results.load_results(place) if (place / results.FILE).is_file() else None
    if told is not None and not told["run"].get("complete"):
        raise UserError(f"the run in '{source}' is not finished: run the same command again, then push it")
    text = card(Edit.load(file), repository, told)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with tempfile.TemporaryDirectory() as draft:
        shutil.copyfile(file, Path(draft, FILE))
        Path(draft, "README.md").write_text(text, encoding="utf-8")
        if told is not None:
            shutil.copyfile(place / results.FILE, Path(draft, results.FILE))
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repository, folder_path=draft, commit_message="An edit of cad_exp"))
        except Exception as error:  # hub and network errors share no base class
            raise UserError(_refusal(error, repository)) from error


def _refusal(error: Exception, repository: str) -> str:
    """Return what keeps an upload from the hub, and what helps."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = reason_of(error) if status is None else (getattr(error, "server_message", None) or f"error {status}")
    if status == 401:
        return f"the hub needs a login for '{repository}': log in by `hf auth login`, then give the same command again"
    if status == 403:
        return f"this login may not write to '{repository}' ({reason}): `hf auth login` with a token that may"
    if status is not None or isinstance(error, ValueError):
        return f"the hub did not take '{repository}': {reason}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE forbids to reach the hub, so '{repository}' stays here: unset it"
    return f"the hub cannot be reached for '{repository}' ({reason}): give the same command again when it can"
