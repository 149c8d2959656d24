"""Folders of images: one reader for noised images and for FID, whose files are those that identify the folder."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cad_exp.config.resolve import resolve
from cad_exp.data.image_folder import check, image_files, images_digest, load_folder, read, unread
from cad_exp.pipeline.identity import run_identity
from cad_exp.pipeline.preflight import check as ready
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed

RED, WHITE = (255, 0, 0), (255, 255, 255)
SAVED = {"jpg": "JPEG", "JPG": "JPEG", "jfif": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"}
SAVED |= {"tif": "TIFF", "TIFF": "TIFF", "jpeg": "JPEG"}


def save(path: Path, image: Image.Image | None = None, kind: str | None = None, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (16, 16), RED)).save(path, format=kind or SAVED[path.suffix[1:]], **more)
    return path


def pixel(path: Path) -> tuple[int, ...]:
    return read(path).getpixel((0, 0))


def test_images_are_cropped_and_resized(tmp_path):
    for name, size in (("b.png", (30, 20)), ("a.JPG", (16, 16))):
        save(tmp_path / name, Image.new("RGB", size, "red" if name[0] == "b" else "blue"))
    images = load_folder(tmp_path, 16)
    assert images.shape == (2, 16, 16, 3) and images[0, 0, 0, 2] > 200 and images[1, 0, 0, 0] == 255


@pytest.mark.parametrize("ending", sorted(SAVED))
def test_every_kind_of_file_is_read(ending, tmp_path):
    np.testing.assert_allclose(pixel(save(tmp_path / f"a.{ending}")), RED, atol=3)
    assert len(image_files(tmp_path)) == 1


def test_orientation_transparency_and_frames(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: the first column of the file is the top row
    sideways = Image.new("RGB", (20, 10), WHITE)
    sideways.paste(RED, (0, 0, 4, 10))
    turned = read(save(tmp_path / "turned.png", sideways, exif=exif))
    assert turned.size == (10, 20) and turned.getpixel((5, 0)) == RED and turned.getpixel((5, 19)) == WHITE
    for half, expected in ((0, WHITE), (128, (255, 127, 127)), (255, RED)):
        see_through = Image.new("RGBA", (4, 4), (*RED, half))
        np.testing.assert_allclose(pixel(save(tmp_path / "alpha.png", see_through)), expected, atol=1)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9, 255, 0, 0])
    assert pixel(save(tmp_path / "palette.png", palette, transparency=0)) == WHITE
    assert pixel(save(tmp_path / "key.png", Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))) == WHITE
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, WHITE)]
    assert pixel(save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])) == RED


def test_other_depths_and_colours(tmp_path):
    for value, expected in ((0, 0), (257, 1), (32896, 128), (65535, 255)):  # 16 bits: 257 v is v of 8
        deep = Image.fromarray(np.full((4, 4), value, np.uint16))
        assert pixel(save(tmp_path / "deep.png", deep)) == (expected,) * 3
        assert pixel(save(tmp_path / "deep.tif", deep)) == (expected,) * 3
    assert pixel(save(tmp_path / "grey.png", Image.new("L", (4, 4), 77))) == (77, 77, 77)
    assert pixel(save(tmp_path / "bits.png", Image.new("1", (4, 4), 1))) == WHITE
    np.testing.assert_allclose(
        pixel(save(tmp_path / "cmyk.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))), RED, atol=4
    )
    plain = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(read(save(tmp_path / "plain.png", Image.fromarray(plain)))), plain)
    opaque = np.dstack([plain, np.full((9, 7), 255, np.uint8)])
    assert np.array_equal(np.asarray(read(save(tmp_path / "opaque.png", Image.fromarray(opaque)))), plain)


def bomb(path: Path, side: int = 60_000) -> None:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def truncated(kind: str) -> bytes:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, format=kind)
    return whole.getvalue()[: len(whole.getvalue()) // 2]


def fractions(path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF")


HARM = {
    "cut.png": lambda path: path.write_bytes(truncated("PNG")),
    "cut.jpg": lambda path: path.write_bytes(truncated("JPEG")),
    "cut.gif": lambda path: path.write_bytes(truncated("GIF")),
    "cut.webp": lambda path: path.write_bytes(truncated("WEBP")),
    "cut.tif": lambda path: path.write_bytes(truncated("TIFF")),
    "empty.png": lambda path: path.write_bytes(b""),
    "text.png": lambda path: path.write_text("nothing"),
    "page.jpg": lambda path: path.write_text("<html>404</html>"),
    "huge.png": bomb,
    "large.png": lambda path: bomb(path, 10_000),
    "fractions.tif": fractions,
}


@pytest.mark.parametrize("name", sorted(HARM))
@pytest.mark.parametrize("key", ["noisy_latents.images", "judge.inception.reference"])
def test_a_bad_image_is_one_sentence_before_the_work(name, key, tmp_path, monkeypatch):
    for number in range(3):
        save(tmp_path / "images" / f"good{number}.png")
    HARM[name](tmp_path / "images" / name)
    with pytest.raises(UserError) as error:
        check(tmp_path / "images", key)
    said = str(error.value)
    assert said.startswith(f"{key}: of 4 images") and name in said and "\n" not in said and "remove or replace" in said
    assert str(tmp_path / "images" / name) not in said.partition("cannot be read")[2]
    if key == "noisy_latents.images":
        with pytest.raises(UserError, match="1 image cannot be read"):
            ready(resolve(composed(f"noisy_latents.images={tmp_path / 'images'}")))


def test_what_is_not_read_is_counted_and_named(tmp_path, capsys):
    for name in ("a.png", "x.png/b.png", "sub/c.webp"):
        save(tmp_path / name, kind="PNG")
    for name in ("notes.txt", "._a.png", ".DS_Store", "d.heic"):
        (tmp_path / name).write_text("none")
    check(tmp_path, "noisy_latents.images")  # hidden files and a folder called x.png harm nothing
    assert [file.name for file in image_files(tmp_path)] == ["a.png", "c.webp", "b.png"]
    assert unread(tmp_path).startswith("3 files are no images in") and unread(tmp_path).endswith(
        "._a.png, d.heic, notes.txt"
    )
    for _ in range(2):
        ready(resolve(composed(f"noisy_latents.images={tmp_path}")))
    assert " ".join(capsys.readouterr().out.split()).count("3 files are no images") == 1


@pytest.mark.parametrize("key", ["noisy_latents.images", "judge.inception.reference"])
def test_folders_that_serve_for_nothing(key, tmp_path):
    (tmp_path / "file.png").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, said in (("none", "no folder of images"), ("file.png", "is a file"), ("empty", "holds no images")):
        with pytest.raises(UserError, match=said):
            check(tmp_path / name, key)
    save(tmp_path / "one" / "a.png")
    with pytest.raises(UserError, match="holds 1 images, at least 2 needed"):
        check(tmp_path / "one", key, 2)


def test_the_identity_is_that_of_what_is_read(tmp_path, monkeypatch):
    """Every change that the reader sees changes a run's identity, and no other change does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "images"
    save(folder / "a.png")
    (tmp_path / "elsewhere").mkdir()
    config = resolve(composed("noisy_latents.images='~/images'"))

    def seen() -> tuple[str, str, bytes]:
        digests = {images_digest(path, "noisy_latents.images") for path in (folder, "~/images", f"{folder}/")}
        assert len(digests) == 1
        return (
            digests.pop(),
            run_identity(config),
            load_folder(folder, 8).tobytes(),
        )

    def draw(name: str, colour: str = "blue") -> None:
        save(folder / name, Image.new("RGB", (16, 16), colour), "PNG")

    def link() -> None:
        save(tmp_path / "elsewhere" / "b.png")
        (folder / "linked").symlink_to(tmp_path / "elsewhere")

    read_ones = [lambda: draw("a.png"), lambda: draw("sub/c.JPEG"), lambda: draw("x.png/d.tif"), link]
    read_ones += [lambda: draw("a.png", "green"), lambda: draw("linked/b.png")]
    read_ones += [lambda: (folder / "a.png").rename(folder / "z.png")]
    before = seen()
    for change in read_ones:
        change()
        after = seen()
        assert all(new != old for new, old in zip(after, before, strict=True))
        before = after
    for name in ("notes.txt", ".DS_Store", "._a.png", ".hidden/e.png", "sub/.x.png", "readme"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not read")
        assert seen() == before
