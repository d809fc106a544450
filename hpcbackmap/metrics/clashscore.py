"""Clashscore: serious overlaps of all atoms, hydrogens included, for every 1,000 atoms (Word et al. 1999).

Van der Waals surfaces that overlap by 0.4 Angstrom or more count, of atoms more than three bonds apart (four
where one is a hydrogen, which turns with its parent). Surfaces of a hydrogen bond may overlap by 0.6 Angstrom
more, by 0.8 between charged groups. Radii and lengths of bonds are those of `protein.surfaces`. Structures
get hydrogens of our own in the states of pH 7, so that all are judged alike; no side chain is flipped.

Shapes: S structures, A heavy atoms, H hydrogens, P = A + H; positions nm.
"""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.metrics.close_pairs import pair_keys
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.protein.surfaces import (
    AROMATIC,
    BONDS,
    HYDROGEN,
    HYDROGEN_BOND,
    POLAR_OR_AROMATIC,
    RADII,
    in_ring,
    radius_of,
)
from hpcbackmap.protein.topology import Topology

__all__ = ["clashscore"]

PH = 7.0
SERIOUS = 0.04
"""Overlap that is a clash, nm."""
SALT_BRIDGE = 0.08
"""Overlap that hydrogen bonds between charged groups may have before it counts, nm."""
TAKES_CHARGED = {("ASP", "OD1"), ("ASP", "OD2"), ("GLU", "OE1"), ("GLU", "OE2")}
GIVES_CHARGED = {("LYS", "NZ"), ("ARG", "NE"), ("ARG", "NH1"), ("ARG", "NH2")}


class _Atoms(NamedTuple):
    """Of one molecule: with its states; parents and lengths of bonds of hydrogens [H]; radii [P]; what gives
    and takes hydrogen bonds and is charged, bool [P]; sorted keys of pairs too few bonds apart to count.
    """

    topology: Topology
    parent: np.ndarray
    length: np.ndarray
    radius: np.ndarray
    gives: np.ndarray
    takes: np.ndarray
    charged: np.ndarray
    bonded: np.ndarray


def clashscore(topology: Topology, heavy: np.ndarray) -> np.ndarray:
    """Clashscore [S] of structures [S, A, 3], NaN where these are not finite."""
    atoms = _atoms_of(replace(topology, protonation=()))
    parents = heavy[:, atoms.parent].astype(np.float64)
    out = add_hydrogens(atoms.topology, heavy) - parents
    out *= atoms.length[:, None] / np.linalg.norm(out, axis=-1, keepdims=True)
    whole = np.concatenate([heavy, parents + out], axis=1)
    scores = np.full(len(heavy), np.nan)
    for number, frame in enumerate(whole):
        if np.isfinite(frame).all():
            scores[number] = 1000 * _serious(atoms, frame) / len(frame)
    return scores


def _serious(atoms: _Atoms, frame: np.ndarray) -> int:
    """Pairs of one structure [P, 3] that clash."""
    pairs = pairs_within(frame, 2 * max(RADII.values()) - SERIOUS)
    first, second = pairs.T
    apart = np.linalg.norm(frame[first] - frame[second], axis=1)
    bond = (atoms.gives[first] & atoms.takes[second]) | (atoms.takes[first] & atoms.gives[second])
    both_charged = atoms.charged[first] & atoms.charged[second]
    allowed = np.where(bond, np.where(both_charged, SALT_BRIDGE, HYDROGEN_BOND), 0.0)
    overlap = atoms.radius[first] + atoms.radius[second] - apart - allowed
    found = pair_keys(pairs[overlap >= SERIOUS], len(frame))
    return int((~np.isin(found, atoms.bonded)).sum())


@lru_cache(maxsize=8)
def _atoms_of(topology: Topology) -> _Atoms:
    topology = replace(topology, protonation=protonation_states(topology, None, PH))
    hydrogens = hydrogens_of(topology)
    names, owner, elements = topology.atom_names, topology.atom_residue, topology.elements
    residues = [topology.sequence[i] for i in owner]
    parent = hydrogens.parent
    polar = np.isin([elements[i] for i in parent], ("N", "O", "S"))
    aromatic = np.array([in_ring(residues[i], names[i]) for i in parent])
    radius = [radius_of(*pair) for pair in zip(residues, names, strict=True)]
    of_hydrogens = np.where(polar | aromatic, POLAR_OR_AROMATIC, HYDROGEN)
    with_hydrogen = set(parent.tolist())
    takes = [
        element == "O" or (residue == "HIS" and name in ("ND1", "NE2") and place not in with_hydrogen)
        for place, (name, residue, element) in enumerate(zip(names, residues, elements, strict=True))
    ]  # fmt: skip
    ends = [
        topology.has_oxt[i] and name in ("O", "OXT") for i, name in zip(owner, names, strict=True)
    ]
    negative = [
        end or pair in TAKES_CHARGED for end, pair in zip(ends, zip(residues, names, strict=True), strict=True)
    ]  # fmt: skip
    positive = [
        (residues[i], names[i]) in GIVES_CHARGED or (names[i] == "N" and not topology.bonded[owner[i]])
        for i in parent
    ]  # fmt: skip
    none = np.zeros(len(parent), dtype=bool)
    length = np.array([BONDS[elements[i]] for i in parent])
    return _Atoms(
        topology,
        parent,
        np.where(aromatic & ~polar, AROMATIC, length),
        np.concatenate([radius, of_hydrogens]),
        np.concatenate([np.zeros(len(names), dtype=bool), polar]),
        np.concatenate([takes, none]),
        np.concatenate([negative, positive]),
        _bonded(topology.bonds, parent, len(names)),
    )


def _bonded(bonds: np.ndarray, parent: np.ndarray, heavy: int) -> np.ndarray:
    """Sorted keys of pairs at most three bonds apart, four with a hydrogen."""
    from scipy.sparse import csr_array

    count = heavy + len(parent)
    edges = np.concatenate([bonds, np.stack([parent, heavy + np.arange(len(parent))], axis=1)])
    one = csr_array((np.ones(len(edges)), edges.T), shape=(count, count))
    one = one + one.T
    three = one + one @ one + one @ one @ one
    four = (three + three @ one).tocoo()
    three = three.tocoo()
    hydrogen = (four.row >= heavy) | (four.col >= heavy)
    row = np.concatenate([three.row, four.row[hydrogen]])
    column = np.concatenate([three.col, four.col[hydrogen]])
    once = row < column
    pairs = np.stack([row[once], column[once]], axis=1).astype(np.int64)
    return np.unique(pair_keys(pairs, count))
