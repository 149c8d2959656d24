"""Labelled images: of a world, and of a folder with one sub-folder a class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cad_exp.data.labelled import SOURCES, UNKNOWN
from cad_exp.utils.errors import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (20 + 4 * number, 20), colour).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_folder_gives_each_image_the_class_of_its_sub_folder(folder: Path):
    source = SOURCES.make({"name": "folder", "path": str(folder)})
    source.check()
    assert source.classes() == {"class": ["blue", "green", "red"]} and source.count() == 9
    found = source.read([0, 4, 8], 16)
    assert found.images.shape == (3, 16, 16, 3) and found.labels["class"].tolist() == [0, 1, 2]
    assert found.images[:, 8, 8].tolist() == [[0, 0, 255], [0, 255, 0], [255, 0, 0]]
    assert found.masks is None and not source.masked
    assert found.captions == ["a photo of a blue", "a photo of a green", "a photo of a red"]
    identity = source.identity()
    (folder / "red" / "0.png").unlink()
    assert SOURCES.make({"name": "folder", "path": str(folder)}).identity() != identity


def test_a_folder_without_classes_is_refused(tmp_path: Path):
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="needs at least two sub-folders"):
        SOURCES.make({"name": "folder", "path": str(tmp_path)}).check()
    with pytest.raises(UserError, match="images.path"):
        SOURCES.make({"name": "folder", "path": str(tmp_path / "none")}).check()


def test_the_world_is_drawn_by_number():
    source = SOURCES.make({"name": "world", "model": "mini", "seed": 1})
    whole, part = source.read(range(40), 64), source.read([7, 3], 64)
    assert np.array_equal(part.images, whole.images[[7, 3]]) and part.captions == [whole.captions[7], whole.captions[3]]
    names, labels = source.classes(), whole.labels
    persons = labels["object"] == names["object"].index("person")
    assert ((labels["nudity"] == UNKNOWN) == ~persons).all() and set(labels) == set(names)
    recoloured = np.isin(labels["style"], [names["style"].index(name) for name in ("Rembrandt", "Andy Warhol")])
    assert ((labels["colour"] == UNKNOWN) == recoloured).all()
    assert source.masked and whole.masks.shape == whole.images.shape[:3] and whole.masks.dtype == bool
    assert np.array_equal(part.masks, whole.masks[[7, 3]]) and source.read([3], 32).masks.shape == (1, 32, 32)
    assert not np.array_equal(
        SOURCES.make({"name": "world", "model": "mini", "seed": 2}).read([7], 64).images, part.images[:1]
    )


def test_a_model_without_a_world_says_what_to_do():
    with pytest.raises(UserError, match="images=folder images.path=FOLDER, or model=mini"):
        SOURCES.make({"name": "world", "model": "CompVis/stable-diffusion-v1-4"})


def test_an_unknown_data_set_is_answered():
    with pytest.raises(UserError, match="did you mean 'OxfordIIITPet'"):
        SOURCES.make({"name": "torchvision", "dataset": "OxfordIITPet", "path": "x"}).classes()


def test_a_missing_data_set_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="images.download=true"):
        SOURCES.make({"name": "torchvision", "dataset": "OxfordIIITPet", "path": str(tmp_path)}).classes()


def test_a_data_set_of_torchvision_is_read_as_a_folder_is(folder: Path):
    theirs = SOURCES.make({"name": "torchvision", "dataset": "ImageFolder", "path": str(folder)})
    ours = SOURCES.make({"name": "folder", "path": str(folder)})
    one, other = theirs.read([1, 5, 8], 16), ours.read([1, 5, 8], 16)
    assert theirs.classes() == ours.classes() and theirs.count() == 9
    assert np.array_equal(one.images, other.images) and np.array_equal(one.labels["class"], other.labels["class"])
