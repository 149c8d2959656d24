"""Where an image encoder's files are: a folder of a transformers CLIP, or the hub. Loads nothing, and no torch.

What a probe reads in the image tower of a CLIP is what a network knows that was trained to see, not to draw.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from cad_exp.models.model_folder import network_files
from cad_exp.models.sources import HUB_ID, MODELS, check_hub, commit
from cad_exp.utils.errors import UserError
from cad_exp.utils.hashing import files_digest
from cad_exp.utils.paths import resolve

INDEX = "config.json"
KEY = "probe.image_encoder"
AUTO = "auto"  # the one that the model's own world brings


def chosen(asked: str | None, model: str) -> str | None:
    """Return the folder or hub id of the encoder that a config asks for; None for none.

    Args:
        asked: what `image_encoder` of a group says: a folder, a hub id, None, or `auto`.
        model: `model.path` of the config.
    """
    if asked != AUTO:
        return asked
    own: Path | None = getattr(MODELS.get(model), "image_encoder", None) if model in MODELS else None
    return None if own is None else str(own)


def folder(encoder: str, key: str = KEY) -> Path | None:
    """Return the folder of an encoder, None for a hub id. key: of the config, for errors.

    Raises:
        UserError: what can be neither.
    """
    place = resolve(encoder)
    if os.path.isfile(place / INDEX):
        return place
    if os.path.exists(place) or not HUB_ID.fullmatch(encoder):
        raise UserError(
            f"{key}: '{encoder}' is neither a folder of a transformers CLIP model (with {INDEX}) nor a hub id such as "
            "openai/clip-vit-base-patch32: give one, or null for none"
        )
    return None


def check(encoder: str, key: str = KEY) -> None:
    """Check within seconds that an encoder can be had. key: of the config, for errors.

    Raises:
        UserError: it cannot, with what to do.
    """
    if folder(encoder, key) is None:
        check_hub(encoder, None, INDEX, key, f"give a folder as {key}, or null for none")


def content(encoder: str) -> str:
    """Return what stands for an encoder's weights: a hash of its files, or its commit on the hub."""
    place = folder(encoder)
    if place is not None:
        return files_digest(place, network_files(place))
    return f"{encoder}@{commit(encoder, None) or uuid.uuid4().hex}"
