"""The unit of length of a file's format, and what a length that is ten times off tells about the file."""

import numpy as np

from hpcbackmap.trajectories.text import suffix_of

__all__ = ["length_unit", "wrong_unit"]

ANGSTROM_FORMATS = (
    ".pdb", ".ent", ".pdb1", ".brk", ".cif", ".mmcif", ".pdbx", ".dcd", ".dtr",
    ".nc", ".ncdf", ".netcdf", ".ncrst", ".crd", ".mdcrd",
    ".inpcrd", ".restrt", ".rst7", ".lammpstrj", ".lammpsdump", ".dump", ".xyz", ".arc",
)  # fmt: skip
"""All others, and stores, are in nm."""
MOST = (0.1, 0.9)
"""Quantiles of lengths that must fit after a change of unit: a scrambled file has only its median right."""


def length_unit(path: str) -> str:
    """``Angstrom`` or ``nm``."""
    return "Angstrom" if suffix_of(path) in ANGSTROM_FORMATS else "nm"


def wrong_unit(path: str, lengths: np.ndarray, low: float, high: float) -> str | None:
    """What is wrong with the unit if ``lengths`` (nm) fit between ``low`` and ``high`` after a factor ten.

    lengths: as read, that is, after the unit of the format was converted. None if no such factor helps.
    """
    unit = length_unit(path)
    for factor, size, change, other in (
        (10, "large", "divide", "Angstrom"),
        (0.1, "small", "multiply", "nm"),
    ):
        if not all(low <= value / factor <= high for value in np.quantile(lengths, MOST)):
            continue
        if unit != other:
            return f"it seems to be in {other}; convert it to {unit}"
        return (
            f"its coordinates are ten times too {size}: {suffix_of(path)} is in {unit}; "
            f"{change} them by ten"
        )
    return None
