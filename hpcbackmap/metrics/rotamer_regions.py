"""Rotamer outliers: residues whose side-chain torsions, taken together, hardly any residue of a crystal has.

The favoured regions hold 98 % and the allowed ones 99.7 % of well-defined residues of 1,880 crystals of 1.8 Å
or better (benchmarks/recipes/rotamers.py), as those of MolProbity do (Hintze et al. 2016) of its own selection.
Of residues of chains of other families and of all qualities 2.1 % are outliers, of well-defined ones 1.4 %, of
side chains turned at random 54 %.
"""

import base64
import json
import zlib
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import SYMMETRIC, dihedrals, torsion_atoms

__all__ = ["BINS", "place_of", "rotamer_regions"]

BINS = {1: 72, 2: 72, 3: 36, 4: 24}
"""Bins of a turn by number of torsions."""


class _Kind(NamedTuple):
    """Residues [R] of one name and the atoms of their torsions [chi, R, 4]."""

    name: str
    residues: np.ndarray
    atoms: np.ndarray


def rotamer_regions(topology: Topology, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which residues with side-chain torsions are in the favoured regions, and which outside the allowed ones.

    positions [F, A, 3]; bool [F, Q] each, residues in any order. One without defined torsions is neither.
    """
    favoured, outliers = [np.zeros((len(positions), 0), dtype=bool)] * 2
    for kind in _kinds_of(topology):
        angles = np.stack([dihedrals(positions, atoms) for atoms in kind.atoms], axis=-1)
        known = np.isfinite(angles).all(-1)
        place = tuple(np.moveaxis(place_of(kind.name, np.nan_to_num(angles)), -1, 0))
        good, possible = (_region(kind.name, name)[place] for name in ("favoured", "allowed"))
        favoured = np.concatenate([favoured, known & good], axis=1)
        outliers = np.concatenate([outliers, known & ~possible], axis=1)
    return favoured, outliers


def place_of(name: str, angles: np.ndarray) -> np.ndarray:
    """Bins [..., chi] of torsions [..., chi], rad, of a residue of this name; symmetric ones by half a turn."""
    n_chi = angles.shape[-1]
    period = [np.pi if (name, k + 1) in SYMMETRIC else 2 * np.pi for k in range(n_chi)]
    bins = BINS[n_chi]
    return np.floor((angles % period) / (2 * np.pi) * bins).astype(int) % bins


@lru_cache(maxsize=16)
def _kinds_of(topology: Topology) -> list[_Kind]:
    sequence = np.array(topology.sequence)
    torsions = [torsion_atoms(topology, f"chi{k}") for k in (1, 2, 3, 4)]
    kinds = []
    for name in sorted(set(topology.sequence)):
        n_chi = max((row.chi for row in RESIDUES[name].placements), default=0)
        if n_chi:
            atoms = [x[sequence[owners] == name] for x, owners in torsions[:n_chi]]
            kinds.append(_Kind(name, np.flatnonzero(sequence == name), np.stack(atoms)))
    return kinds


@cache
def _region(name: str, which: str) -> np.ndarray:
    """Bins of a kind of residue that are ``favoured`` or ``allowed``, bool, one axis for each torsion."""
    n_chi = max(row.chi for row in RESIDUES[name].placements)
    packed = zlib.decompress(base64.b64decode(_table()[which][name]))
    inside = np.unpackbits(np.frombuffer(packed, dtype=np.uint8)).astype(bool)
    return inside[: BINS[n_chi] ** n_chi].reshape((BINS[n_chi],) * n_chi)


@cache
def _table() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        resources.files("hpcbackmap.metrics").joinpath("rotamers.json").read_text()
    )
    return found
