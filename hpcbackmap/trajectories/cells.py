"""Unit cells: three edge vectors, and which of those that files name can be none.

Shapes: cells [F, 3, 3], nm, rows are vectors; x along the first, y in the plane of the first two.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["SMALLEST_CELL", "cell_of", "cleaned", "lengths_and_angles", "usable_cells"]

SMALLEST_CELL = 1.0
"""Height (nm) below which a cell is a placeholder, as in PDB files without a crystal."""
LARGEST_CELL = 1e6
"""nm; no edge is longer."""


def cell_of(
    lengths: Sequence[float] | np.ndarray, angles: Sequence[float] | np.ndarray
) -> np.ndarray | None:
    """Vectors of edges (nm) and angles (degrees); None if no such box exists."""
    a, b, c = (float(value) for value in lengths)
    alpha, beta, gamma = np.radians(np.asarray(angles, dtype=np.float64))
    if not np.isfinite([a, b, c, alpha, beta, gamma]).all() or min(a, b, c) <= 0:
        return None
    cosines = np.cos([alpha, beta, gamma])
    cosines[np.abs(cosines) < 1e-12] = 0.0
    sine = np.sin(gamma)
    if min(alpha, beta, gamma) <= 0 or max(alpha, beta, gamma) >= np.pi:
        return None
    x = cosines[1]
    y = (cosines[0] - cosines[1] * cosines[2]) / sine
    square = 1 - x * x - y * y
    if square <= 1e-6:
        return None
    return np.array([[a, 0, 0], [b * cosines[2], b * sine, 0], [c * x, c * y, c * np.sqrt(square)]])


def usable_cells(cells: np.ndarray) -> np.ndarray:
    """Whether cells [F, 3, 3] span a box with a right-handed corner, bool [F]; missing ones are zero, NaN or
    placeholders.
    """
    finite = (np.abs(cells) < LARGEST_CELL).all(axis=(1, 2))
    cells = np.where(finite[:, None, None], cells, 0).astype(np.float64)
    sides = np.linalg.norm(np.cross(np.roll(cells, -1, 1), np.roll(cells, -2, 1)), axis=-1)
    volume = np.linalg.det(cells)
    found: np.ndarray = (
        finite & (volume > SMALLEST_CELL * sides.max(axis=1)) & (sides.min(axis=1) > 0)
    )
    return found


def cleaned(cells: np.ndarray | None) -> np.ndarray | None:
    """Cells with zeros for those that are none; None if none is one."""
    if cells is None:
        return None
    usable = usable_cells(cells)
    if not usable.any():
        return None
    return np.where(usable[:, None, None], cells, 0)


def lengths_and_angles(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges [F, 3] (nm) and angles [F, 3] (degrees); no cell: 0 and 90."""
    cells = np.asarray(cells, dtype=np.float64)
    lengths = np.linalg.norm(cells, axis=-1)
    safe = np.where(lengths > 0, lengths, 1.0)
    unit = cells / safe[..., None]
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(-1) for i, j in pairs], axis=1)
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))
