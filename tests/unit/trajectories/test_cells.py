"""Cells from edges and angles and back; what is no cell."""

import numpy as np
import pytest
from mdtraj.utils import lengths_and_angles_to_box_vectors

from hpcbackmap.trajectories.cells import cell_of, cleaned, lengths_and_angles, usable_cells

BOXES = [
    ((3.0, 4.0, 5.0), (90.0, 90.0, 90.0)),
    ((6.0, 6.0, 6.0), (60.0, 60.0, 90.0)),
    ((5.0, 7.0, 9.0), (70.5, 109.5, 120.0)),
]


@pytest.mark.parametrize(("lengths", "angles"), BOXES)
def test_vectors_are_those_of_mdtraj_and_give_the_edges_back(lengths, angles):
    cell = cell_of(lengths, angles)
    other = np.stack(lengths_and_angles_to_box_vectors(*lengths, *angles))
    assert np.abs(cell - other).max() < 1e-6
    back = lengths_and_angles(cell[None])
    assert np.allclose(back[0][0], lengths)
    assert np.allclose(back[1][0], angles)


@pytest.mark.parametrize(
    ("lengths", "angles"),
    [
        ((0.0, 4.0, 5.0), (90.0, 90.0, 90.0)),
        ((3.0, 4.0, np.nan), (90.0, 90.0, 90.0)),
        ((3.0, 4.0, 5.0), (90.0, 180.0, 90.0)),
        ((3.0, 4.0, 5.0), (20.0, 90.0, 150.0)),
    ],
)
def test_edges_that_span_no_box(lengths, angles):
    assert cell_of(lengths, angles) is None


def test_placeholders_are_no_cells():
    good = np.diag([3.0, 4.0, 5.0])
    flat = np.diag([3.0, 4.0, 0.1])
    cells = np.stack([good, flat, 0 * good, good * np.nan])
    assert usable_cells(cells).tolist() == [True, False, False, False]
    assert np.array_equal(cleaned(cells), [good, 0 * good, 0 * good, 0 * good])
    assert cleaned(cells[1:]) is None
    assert cleaned(None) is None
