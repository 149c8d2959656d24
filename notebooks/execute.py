"""Run a notebook as a reader would: a fresh kernel in an empty folder, cell after cell."""

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SETTINGS = "parameters"  # tag of the cell whose names may be given other values


def names() -> list[str]:
    """Return the names of all notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def with_settings(book: Any, **settings: Any) -> Any:
    """Return the notebook with other values in its cell of settings; KeyError for a name that the cell does not set."""
    book = nbformat.from_dict(book)
    (cell,) = (cell for cell in book.cells if SETTINGS in cell.metadata.get("tags", []))
    lines = cell.source.splitlines()
    for name, value in settings.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{name} =")]
        if not at:
            raise KeyError(name)
        lines[at[0]] = f"{name} = {value!r}"
    cell.source = "\n".join(lines)
    return book


def run(path: Path, to: Path | None = None, timeout: int = 600, **settings: Any) -> Any:
    """Run a notebook and return it with its outputs; `to` is written only when every cell has run.

    settings: other values for its cell of settings. Raises CellExecutionError for a cell that fails.
    """
    book = with_settings(nbformat.read(path, as_version=4), **settings)
    here = str(FOLDER.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times, which differ each time
    if to is not None:
        nbformat.write(book, to)
    return book
