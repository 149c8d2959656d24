"""The notebooks run from top to bottom, and what is kept in them was made by their code as it stands."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install -e '.[docs]'")
pytest.importorskip("nbclient", reason="needs nbclient: pip install -e '.[docs]'")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install -e '.[docs]'")

from nbclient.exceptions import CellExecutionError  # noqa: E402

from notebooks.execute import FOLDER, names, run, with_settings  # noqa: E402

SMALL = {
    "find_erase_check": {"TRAJECTORIES": 2, "STEPS": 2, "IMAGES": 6},
    "what_does_this_layer_know": {"IMAGES": 80, "TIMESTEPS": [1, 100]},
}


def pictures(book) -> int:
    outputs = (output for cell in book.cells for output in cell.get("outputs", []))
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)


def test_every_notebook_has_a_quick_form():
    assert names() == sorted(SMALL)


@pytest.mark.parametrize("name", names())
def test_a_notebook_runs_from_top_to_bottom(name: str):
    """With smaller numbers, in a fresh kernel and an empty folder."""
    kept = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert pictures(run(FOLDER / f"{name}.ipynb", **SMALL[name])) == pictures(kept) > 3


@pytest.mark.parametrize("name", names())
def test_what_is_kept_is_small_whole_and_without_errors(name: str):
    path = FOLDER / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 400_000
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    assert {output.get("name") for cell in code for output in cell.outputs} <= {None, "stdout"}
    assert str(Path.home()) not in path.read_text() and "site-packages" not in path.read_text()
    assert 'find_spec("cad_exp")' in code[0].source


def test_a_cell_that_fails_stops_and_nothing_is_written(tmp_path: Path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("A = 1", metadata={"tags": ["parameters"]})])
    book.cells.append(nbformat.v4.new_code_cell("1 / (A - 1)"))
    nbformat.write(book, tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(tmp_path / "broken.ipynb", to=tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
    assert run(tmp_path / "broken.ipynb", A=2).cells[1].outputs[0].data["text/plain"] == "1.0"
    with pytest.raises(KeyError):
        with_settings(book, B=1)
