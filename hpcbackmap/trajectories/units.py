"""The unit of length of a file's format, and what a length that is ten times off tells about the file."""

import numpy as np

from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.trajectories.text import suffix_of

__all__ = ["fitting_unit", "frame_bytes", "length_unit", "unit_scale", "wrong_unit"]

ANGSTROM_FORMATS = (
    ".pdb", ".ent", ".pdb1", ".brk", ".cif", ".mmcif", ".pdbx", ".dcd", ".dtr",
    ".nc", ".ncdf", ".netcdf", ".ncrst", ".crd", ".mdcrd",
    ".inpcrd", ".restrt", ".rst7", ".lammpstrj", ".lammpsdump", ".dump",
    ".data", ".lmp", ".lammps", ".xyz", ".arc",
)  # fmt: skip
"""All others, and stores, are in nm."""
MOST = (0.1, 0.9)
"""Quantiles of lengths that must fit after a change of unit: a scrambled file has only its median right."""


def frame_bytes(particles: int) -> int:
    """Bytes of one frame of so many particles, as this package holds positions: three float32 each."""
    return 12 * particles


def length_unit(path: str) -> str:
    """``Angstrom`` or ``nm``."""
    return "Angstrom" if suffix_of(path) in ANGSTROM_FORMATS else "nm"


def unit_scale(path: str, unit: str | None) -> float:
    """What to multiply positions by that were read in the unit of the format, if the file is in ``unit``:
    ``nm``, ``A``, or a number of nm. Raises ConfigError for another.
    """
    if unit is None:
        return 1.0
    names = {"nm": 1.0, "a": 0.1, "angstrom": 0.1, "å": 0.1}
    try:
        size = names[unit.lower()] if unit.lower() in names else float(unit)
    except ValueError:
        size = 0.0
    if not 1e-6 < size < 1e6:
        raise ConfigError(f"--unit {unit}: give nm, A, or how many nm a unit of the file is")
    return size / _nm(path)


def fitting_unit(path: str, lengths: np.ndarray, low: float, high: float) -> str | None:
    """The unit, as `unit_scale` takes it, in which ``lengths`` fit that were read in the unit of the format."""
    for factor in (10.0, 0.1):
        if all(low <= value / factor <= high for value in np.quantile(lengths, MOST)):
            size = _nm(path) / factor
            return {1.0: "nm", 0.1: "A"}.get(round(size, 6), f"{size:.6g}")
    return None


def _nm(path: str) -> float:
    return 0.1 if length_unit(path) == "Angstrom" else 1.0


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
