"""The notebook of the docs runs as it is, and shows the map of the heads and the predictions."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "experiments/notebook.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
def test_the_notebook_goes_from_pictures_to_a_task_vector(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert "image/png" in kinds and "text/html" in kinds
    assert not list(tmp_path.iterdir()), "the stages as functions write nothing"


def test_what_is_shown_of_the_notebook_tells_nothing_of_a_machine():
    assert "/home/" not in (text := NOTEBOOK.read_text()) and "site-packages" not in text
