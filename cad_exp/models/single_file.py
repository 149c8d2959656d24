"""Single-file checkpoints: all networks of a pipeline in one safetensors file, with the names of the original code.

Such a file holds no configs and no tokenizer. They come from `model.config`: the folder or the hub id of the model that
it descends from.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from cad_exp.models.model_folder import left_out
from cad_exp.models.sources import locate_config
from cad_exp.utils.errors import UserError


def load(file: Path, config: str | None, revision: str | None, dtype: torch.dtype) -> Any:
    """Load a pipeline from a file.

    Args:
        file: the checkpoint.
        config: a diffusers folder, whose weights are not read, or a hub id.
        revision: of the hub id.
        dtype: of all networks.

    Raises:
        UserError: no config is named, or its pipeline knows no single files.
    """
    folder = locate_config(config, file)
    source = str(folder or config)
    index = DiffusionPipeline.load_config(source, revision=revision, local_files_only=folder is not None)
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    if kind is None or not hasattr(kind, "from_single_file"):
        raise UserError(f"model.config='{config}' is no pipeline that diffusers loads from single files")
    kept = {name: value for name, value in left_out(dict(index)).items() if name != "requires_safety_checker"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kind.from_single_file(
            str(file),
            config=source,
            revision=revision,
            torch_dtype=dtype,
            local_files_only=folder is not None,
            **kept,
        )
