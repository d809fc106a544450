"""The notebook of the example runs from its first cell to its last."""

import json
import os

import pytest
from commands import EXAMPLE

matplotlib = pytest.importorskip("matplotlib")


def test_every_cell_runs(monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(EXAMPLE)
    notebook = json.loads((EXAMPLE / "trpcage.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 7
    assert all(not cell["outputs"] for cell in cells)
    before, names = set(os.listdir()), {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert len(names["members"]) == 5
    assert names["view"](names["members"]) is not None
    assert set(os.listdir()) == before, "it leaves nothing behind"
