"""The edit of a finished run as something that needs no cad_exp: an ordinary checkpoint, or LoRA layers.

1. results.json says which model the run started from, and promises the edit's file; both are held against it.
2. That model is loaded on the CPU in the precision of the run, with its weights, LoRA layers and earlier edits.
3. Its weights must be those for which the edit was made.
4. The edit goes into a copy of them (checkpoint), or what it changes is written as LoRA layers.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cad_exp.config.schema.model import Model as ModelSettings
from cad_exp.config.validation import sentence
from cad_exp.reporting.results import FILE as RESULTS
from cad_exp.reporting.results import load_results
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import file_digest
from cad_exp.utils.paths import find_folder, resolve

if TYPE_CHECKING:
    from cad_exp.models.pipeline import DiffusionModel

EDIT, ERASED = "edit.safetensors", "erased.safetensors"
NAMES = {"checkpoint": "checkpoint", "lora": "lora.safetensors"}  # in the folder of the run


@dataclass(frozen=True)
class Finished:
    """A finished run with an edit.

    model: the settings of the model for which the edit was made; an erasure before it counts as an edit.
    precision: in which the run had it.
    """

    folder: Path
    model: dict[str, Any]
    precision: str

    @property
    def edit(self) -> Path:
        """The edit's file."""
        return self.folder / EDIT

    @property
    def plain(self) -> bool:
        """Whether the run started from the model itself, with nothing laid over it."""
        return not any(self.model[key] for key in ("weights", "lora", "edits"))


def finished(folder: Path) -> Finished:
    """Return the run in a folder. No torch.

    Raises:
        UserError: there is no run, it is not finished, it made no edit, or the edit's file is not what it wrote.
    """
    folder = find_folder(folder, "FOLDER")
    if not (folder / RESULTS).exists():
        raise UserError(f"the folder '{folder}' holds no {RESULTS}: give the folder of one finished run")
    run = load_results(folder)["run"]
    if not run["complete"]:
        raise UserError(f"the run in '{folder}' is not finished: give its command again, then export its edit")
    precision = str(run.get("precision", "fp32"))
    promised = (run.get("files") or {}).get(EDIT)
    settings = run.get("config", {}).get("model")
    if promised is None or not isinstance(settings, dict):
        asks = f"task={run.get('task')}" if run.get("task") != "attribute" else f"edit={run.get('edit')}"
        raise UserError(f"the run in '{folder}' made no edit ({asks}): give one of task=attribute with an edit")
    first = [ERASED] if settings.get("erased") else []
    for name in (EDIT, *first):
        if not os.path.isfile(folder / name) or file_digest(folder / name) != run["files"].get(name):
            raise UserError(f"'{folder / name}' is not what the run wrote: give its command again, it makes it anew")
    model = _settings(settings, folder)
    return Finished(folder, model | {"edits": [*model["edits"], *(str(folder / name) for name in first)]}, precision)


def _settings(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a run's model in their types; by the erasure its folder has a file."""
    try:
        return ModelSettings.model_validate({"judge": None, **given, "erased": None}).model_dump()
    except ValidationError as error:
        reason = sentence(error.errors(include_url=False)[0], {}, ())
        raise UserError(
            f"'{folder / RESULTS}' tells of a model that this cad_exp cannot load (model: {reason}): "
            "give the run's command again"
        ) from None


def place(to: str, run: Finished, given: str | None) -> Path:
    """Return where an export goes. UserError where something lies there already, or the ending is wrong. No torch."""
    path = resolve(given) if given else run.folder / NAMES[to]
    if to == "lora" and path.suffix != ".safetensors":
        raise UserError(f"path={given} is no name of a LoRA file: give one that ends in .safetensors")
    if os.path.lexists(path):
        raise UserError(f"there is already something at '{path}', and nothing is written over it: give another path=")
    return path


def export(to: str, run: Finished, path: Path, check: bool = True) -> Path:
    """Write the edit of a run as a checkpoint or a LoRA.

    Args:
        to: a key of NAMES.
        run: whose edit it is.
        path: of the new folder or file, from `place`.
        check: whether the model must have the very weights for which the edit was made.

    Raises:
        UserError: the edit changes no weights, has no low rank, or the model cannot be had or is another one.
    """
    from cad_exp.interventions.edit import Edit
    from cad_exp.interventions.load_edit import load_edit
    from cad_exp.interventions.lora_file import export_lora

    edit = Edit.load(run.edit)
    _folds(edit, run.folder)
    for name in run.model["edits"] if to == "checkpoint" else ():
        _folds(Edit.load(resolve(name)), name)
    model = _loaded(run)
    if check:
        load_edit(model, run.edit).undo()
    try:
        return edit.export(model, path) if to == "checkpoint" else export_lora(edit, model, path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror}): give another path=") from None


def _folds(edit: Any, source: Any) -> None:
    """Raise UserError for an edit that no checkpoint and no LoRA can hold."""
    if edit.vectors or edit.steering:
        raise UserError(
            f"the edit of '{source}' changes activations while the model runs (latents, directions, steering) and no "
            "weights, so neither a checkpoint nor a LoRA holds it: apply it by cad_exp.load_edit(pipe, FOLDER), "
            "or share it by to=hub"
        )


def _loaded(run: Finished) -> DiffusionModel:
    """Return the model that the run started from, on the CPU."""
    from cad_exp.pipeline.runtime import Runtime
    from cad_exp.pipeline.stages.model import Model

    model = Model.of(run.model)
    model.requires()
    settings = {"device": "cpu", "precision": run.precision, "threads": None, "offload": "none", "checkpointing": False}
    with tempfile.TemporaryDirectory() as scratch:  # nothing is kept: a model has no files of its own
        runtime = Runtime(settings | {"cache": scratch}, scratch)
        found: DiffusionModel = runtime.get(model)
        runtime.close()
    return found
