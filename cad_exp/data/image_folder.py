"""Folders of images, read one way for noised images and for FID: which files count, and what their pixels are.

Images of sub-folders belong to the folder. Nothing here imports torch: a bad image is found before any work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from cad_exp.utils import console
from cad_exp.utils.errors import UserError, reason_of
from cad_exp.utils.hashing import files_digest
from cad_exp.utils.paths import find_folder, listing, names

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # also in capitals
LARGEST = 89_478_485  # pixels; a small file can claim billions of them. Pillow itself warns from here on.
SHOWN = 3  # names in a message


def image_files(folder: str | Path) -> list[Path]:
    """Return the images below a folder, by name: all files with one of ENDINGS that are not hidden."""
    return listing(folder, ENDINGS)


def unread(folder: str | Path) -> str | None:
    """Return a sentence that counts and names the files below a folder that are not read; None if there are none.

    Of hidden files only those are named that look like images.
    """
    read = set(image_files(folder))
    left = [file for file in names(folder) if file not in read]
    left = [file for file in left if not file.name.startswith(".") or file.suffix.lower() in ENDINGS]
    if not left:
        return None
    what = "1 file is no image" if len(left) == 1 else f"{len(left)} files are no images"
    return f"{what} in '{folder}' and not read: {_named([file.name for file in left])}"


def check(folder: str | Path, key: str, least: int = 1) -> None:
    """UserError, in one sentence, if a folder has fewer than `least` images, or some that cannot be read.

    key: of the config, that names the folder. Every image is decoded, once in a process.
    """
    place = find_folder(folder, key, "folder of images")
    files = image_files(place)
    if len(files) < least:
        kinds = ", ".join(ending[1:] for ending in ENDINGS)
        raise UserError(f"{key}: '{folder}' holds {len(files) or 'no'} images, at least {least} needed ({kinds})")
    with ThreadPoolExecutor() as pool:  # decoders of Pillow let other threads run
        reasons = list(pool.map(_fault, files))
    bad = [f"{file.relative_to(place)} ({reason})" for file, reason in zip(files, reasons, strict=True) if reason]
    if bad:
        what = "1 image cannot be read" if len(bad) == 1 else f"{len(bad)} images cannot be read"
        raise UserError(f"{key}: of {len(files)} images in '{folder}' {what}: {_named(bad)}; remove or replace")


def check_and_tell(folder: str | Path, key: str, least: int = 1) -> None:
    """As `check`; warns, once in a process, of files that are not read."""
    check(folder, key, least)
    _tell(unread(folder))


@cache
def _tell(sentence: str | None) -> None:
    if sentence:
        console.say(f"  {sentence}", style="yellow")


def read(file: Path) -> Image.Image:
    """Return an image as RGB, upright by its EXIF entry, transparency laid over white, of an animation the first frame.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB. Raises UserError for a file that is damaged, too large, or
    has pixels of another kind.
    """
    try:
        return _opened(file)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of a dozen kinds
        reason = "no image, or a damaged one" if "cannot identify" in str(error) else reason_of(error)
        raise UserError(f"the image '{file}' cannot be read ({reason}): remove or replace it") from error


def load_folder(path: str | Path, resolution: int) -> np.ndarray:
    """Read all images of a folder by their names, centre-cropped and resized.

    Args:
        path: of the folder; sub-folders count, hidden files do not.
        resolution: side in pixels.

    Returns:
        (N, resolution, resolution, 3) uint8.

    Raises:
        UserError: the folder is not there or holds no image, or an image cannot be read.

    Examples:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Path("cats").mkdir()
        >>> Image.new("RGB", (80, 60)).save("cats/tom.png")
        >>> cad_exp.load_folder("cats", 64).shape
        (1, 64, 64, 3)
    """
    from PIL import ImageOps

    check(path, "noisy_latents.images")
    return np.stack([np.asarray(ImageOps.fit(read(file), (resolution, resolution))) for file in image_files(path)])


def _opened(file: Path) -> Image.Image:
    pillow = _pillow()
    from PIL import ImageOps

    try:
        opened = pillow.open(file)
    except pillow.DecompressionBombError as error:
        raise UserError(_too_large(file)) from error
    with opened:
        if opened.width * opened.height > LARGEST:
            raise UserError(_too_large(file))
        return _rgb(ImageOps.exif_transpose(opened), file)


def _rgb(image: Image.Image, file: Path) -> Image.Image:
    pillow = _pillow()
    if image.mode == "F":
        raise UserError(f"the image '{file}' cannot be read (its pixels are fractions): save it with 8 bits")
    if image.mode.startswith("I"):  # whole numbers of 16 bits, which `convert` would cut off at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() >= 2**16:
            raise UserError(f"the image '{file}' cannot be read (over 16 bits a pixel): save it with 8 bits")
        image = pillow.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _too_large(file: Path) -> str:
    return f"the image '{file}' cannot be read (over {LARGEST:,} pixels): make it smaller"


def _fault(file: Path) -> str | None:
    state = file.stat()
    return _fault_of(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _fault_of(file: Path, size: int, changed: int) -> str | None:
    """Why a file in this state cannot be read; None if it can."""
    if not size:
        return "empty"
    try:
        read(file)
    except UserError as error:
        return str(error).partition("cannot be read (")[2].partition("): ")[0]
    return None


def _named(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


@cache
def _pillow() -> ModuleType:
    """Pillow, whose warning about large images `LARGEST` replaces; filters of warnings are no thread's own."""
    import warnings

    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def images_digest(folder: str | Path, key: str) -> str:
    """Hash of the images of a folder that the config's `key` names. UserError if there is none."""
    return files_digest(folder, image_files(find_folder(folder, key, "folder of images")))
