"""Folders that are made for work that may be refused."""

from pathlib import Path

import pytest

from cad_exp.utils.io import made


def test_a_folder_stays_after_the_work(tmp_path: Path):
    with made(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert folder.is_dir()


def test_work_that_fails_leaves_no_empty_folder(tmp_path: Path):
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "old" / "new" / "deep"):
        with pytest.raises(KeyboardInterrupt), made(folder):
            raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]  # which was there before


def test_work_that_fails_loses_no_file(tmp_path: Path):
    with pytest.raises(ValueError), made(tmp_path / "a" / "b") as folder:
        (folder / "page.png").touch()
        raise ValueError
    assert (folder / "page.png").exists()


def test_no_folder_can_be_made_below_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), made(tmp_path / "file" / "a"):
        pass
