"""Hydrogens that heavy atoms place: bond lengths and angles of AMBER (Cornell et al., J. Am. Chem. Soc. 117,
5179, 1995), methyl groups staggered.

Shapes: F structures, A heavy atoms, H hydrogens, K groups of one kind; positions nm, computed in float64.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.protein.hydrogens import Hydrogens

__all__ = ["TURNING", "placed", "turned_about"]

LENGTH = {"oh": 0.0960, "phenol": 0.0960, "acid": 0.0960, "sh": 0.1336, "nh3": 0.1010, "nh2": 0.1010,
          "amide": 0.1010, "ch": 0.1090, "ch2": 0.1090, "ch3": 0.1090}  # fmt: skip
PLANAR = {"C": 0.1080, "N": 0.1010}
"""Of a hydrogen on an sp2 atom, by the element."""
ANGLE = {"oh": 108.5, "phenol": 113.0, "acid": 113.0, "sh": 96.0, "nh3": 109.5, "nh2": 120.0, "ch3": 109.5,
         "amide": 119.0}  # fmt: skip
"""Degrees, with the parent's neighbour."""
DIHEDRAL = {"oh": 180.0, "phenol": 0.0, "acid": 0.0, "sh": 180.0, "nh3": 60.0, "nh2": 0.0, "ch3": 60.0,
            "amide": 120.0}  # fmt: skip
"""Of the first hydrogen; others follow evenly. Behind a break in a chain, as if phi were -60."""
TURNING = ("oh", "phenol", "sh", "nh3")
"""Kinds whose dihedral is chosen by what is around."""
HALF_TETRAHEDRAL = np.deg2rad(109.5 / 2)


class _Kind(NamedTuple):
    """Groups of one kind: atoms [K, n], first hydrogen of each [K], number of hydrogens."""

    kind: str
    atoms: np.ndarray
    first: np.ndarray
    hydrogens: int
    element: str


def placed(hydrogens: Hydrogens, heavy: np.ndarray) -> np.ndarray:
    """Hydrogens [F, H, 3] of heavy atoms [F, A, 3]; those that can turn stand as `DIHEDRAL` says."""
    found = np.empty((len(heavy), len(hydrogens.names), 3))
    for group in _by_kind(hydrogens):
        sites = np.moveaxis(heavy[:, group.atoms].astype(np.float64), 2, 0)  # [n, F, K, 3]
        for number, position in enumerate(_positions(group, sites)):
            found[:, group.first + number] = position
    return found


def turned_about(
    kind: str, hydrogens: int, sites: np.ndarray, degrees: np.ndarray | float
) -> np.ndarray:
    """Hydrogens [..., h, 3] of groups with sites [3, ..., 3], the first at dihedrals ``degrees`` [...]."""
    parent, neighbour, beyond = sites
    step = 180.0 if kind == "nh2" else 120.0
    dihedral = np.deg2rad(np.asarray(degrees)[..., None] + step * np.arange(hydrogens))
    axis = _unit(neighbour - parent)
    across = beyond - neighbour
    across = _unit(across - (across * axis).sum(-1, keepdims=True) * axis)
    third = np.cross(axis, across)
    angle = np.deg2rad(ANGLE[kind])
    round_axis = (
        np.cos(dihedral)[..., None] * across[..., None, :]
        - np.sin(dihedral)[..., None] * third[..., None, :]
    )
    direction = np.cos(angle) * axis[..., None, :] + np.sin(angle) * round_axis
    found: np.ndarray = parent[..., None, :] + LENGTH[kind] * direction
    return found


def _positions(group: _Kind, sites: np.ndarray) -> list[np.ndarray]:
    """Of each hydrogen of the groups [F, K, 3]; sites [n, F, K, 3]."""
    parent, others = sites[0], sites[1:]
    if group.kind == "sp2":
        return [parent - PLANAR[group.element] * _unit(_directions(parent, others).sum(0))]
    if group.kind == "ch":
        return [parent - LENGTH["ch"] * _unit(_directions(parent, others).sum(0))]
    if group.kind == "ch2":
        first, second = _directions(parent, others)
        away, normal = -_unit(first + second), _unit(np.cross(first, second))
        length = PLANAR["N"] if group.element == "N" else LENGTH["ch2"]
        along, aside = length * np.cos(HALF_TETRAHEDRAL), length * np.sin(HALF_TETRAHEDRAL)
        return [parent + along * away + side * aside * normal for side in (-1.0, 1.0)]
    turned = turned_about(group.kind, group.hydrogens, sites, DIHEDRAL[group.kind])
    return [turned[..., number, :] for number in range(group.hydrogens)]


def _directions(parent: np.ndarray, others: np.ndarray) -> np.ndarray:
    return _unit(others - parent)


def _unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.sqrt(np.square(vectors).sum(-1, keepdims=True))
    return found


@lru_cache(maxsize=8)
def _by_kind(hydrogens: Hydrogens) -> list[_Kind]:
    rows: dict[tuple[Any, ...], list[tuple[tuple[int, ...], int]]] = {}
    at = 0
    for group in hydrogens.groups:
        element = hydrogens.topology.elements[group.atoms[0]]
        key = (group.kind, len(group.names), element)
        rows.setdefault(key, []).append((group.atoms, at))
        at += len(group.names)
    return [
        _Kind(
            kind, np.array([a for a, _ in found]), np.array([f for _, f in found]), count, element
        )
        for (kind, count, element), found in rows.items()
    ]
