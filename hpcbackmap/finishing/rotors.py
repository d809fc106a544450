"""Hydroxyl, thiol and ammonium groups turned towards acceptors and away from what is in their way.

The best of a grid of dihedrals by Coulomb energy (dielectric 4 r / angstrom), Lennard-Jones energy and torsion,
with radii of CHARMM22 (MacKerell et al., J. Phys. Chem. B 102, 3586, 1998) and rounded partial charges. Groups
near each other are turned again, one after another, each seeing where the others are.

Shapes: F structures, S sites (heavy atoms, then hydrogens), K groups, P pairs; positions nm.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hpcbackmap.finishing.place import TURNING, turned_about
from hpcbackmap.protein.hydrogens import Hydrogens
from hpcbackmap.protein.topology import Topology

__all__ = ["turn"]

REACH = 0.5
"""nm from the parent, within which sites count."""
TOGETHER = 0.50
"""nm between parents of groups that see each other."""
TRIED = 24
"""Positions of hydrogens tried: dihedrals over the full turn, of three alike hydrogens over a third of it."""
BARRIER = {"oh": (3, 1.0), "phenol": (2, 7.0), "sh": (3, 3.0), "nh3": (3, 6.0)}
"""Folds of the torsion and its height, kJ/mol."""
RADIUS = {"H": 0.02245, "HC": 0.125, "C": 0.19, "N": 0.185, "O": 0.17, "S": 0.20}
WELL = {"H": 0.192, "HC": 0.10, "C": 0.35, "N": 0.84, "O": 0.50, "S": 1.88}
"""Lennard-Jones: half the distance of least energy, nm, and its depth, kJ/mol. HC: hydrogen on carbon."""
COULOMB = 138.935 / 40
"""kJ/mol nm^2 / e^2, over the dielectric 4 r / angstrom."""
CHARGED = {
    ("ASP", "OD1"): -0.76, ("ASP", "OD2"): -0.76, ("GLU", "OE1"): -0.76, ("GLU", "OE2"): -0.76,
    ("ASP", "CG"): 0.62, ("GLU", "CD"): 0.62, ("ARG", "CZ"): 0.64, ("LYS", "NZ"): -0.3, ("CYS", "SG"): -0.23,
    ("MET", "SD"): -0.2, ("ARG", "NE"): -0.7, ("ARG", "NH1"): -0.8, ("ARG", "NH2"): -0.8,
}  # fmt: skip
BY_ELEMENT = {"C": 0.0, "N": -0.47, "O": -0.55, "S": -0.1}
POLAR = {"oh": 0.43, "phenol": 0.43, "sh": 0.16, "nh3": 0.33}
"""Charge of a hydrogen that turns."""


class _Rotors(NamedTuple):
    """Groups that turn, of one molecule. counts: hydrogens of each. atoms: [K, 3]. first: hydrogen of each.
    seen: sites that do not turn, more than three bonds from their hydrogens, bool [K, S]. turning, group_of:
    all their hydrogens, and whose each is. torsion: of each dihedral. polar: charge of the hydrogens of each.
    charge, radius, well: of each site.
    """

    kinds: list[str]
    counts: list[int]
    atoms: np.ndarray
    first: np.ndarray
    seen: np.ndarray
    turning: np.ndarray
    group_of: np.ndarray
    torsion: list[np.ndarray]
    polar: np.ndarray
    charge: np.ndarray
    radius: np.ndarray
    well: np.ndarray


def turn(hydrogens: Hydrogens, heavy: np.ndarray, placed: np.ndarray) -> None:
    """Turn groups among ``placed`` [F, H, 3] in place, about heavy atoms [F, A, 3]."""
    rotors = _rotors(hydrogens)
    if rotors.kinds:
        for frame, hydrogen in zip(heavy, placed, strict=True):
            _turn_one(rotors, frame.astype(np.float64), hydrogen)


def _turn_one(rotors: _Rotors, heavy: np.ndarray, placed: np.ndarray) -> None:
    """One structure: all groups among what stands, then those near each other again."""
    sites = np.concatenate([heavy, placed])
    parents = sites[rotors.atoms[:, 0]]
    group, other = _within_reach(parents, sites, rotors.seen)
    tried = _tried(rotors, sites[rotors.atoms])
    energy = np.zeros((len(parents), TRIED))
    pairs = _interaction(tried[group], sites[other], rotors, group, other)
    if len(group):
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        energy[group[starts]] = np.add.reduceat(pairs, starts)
    energies = [_by_dihedral(rotors, k, energy[k]) + rotors.torsion[k] for k in range(len(parents))]
    for k, own in enumerate(energies):
        _put(rotors, k, tried[k], int(own.argmin()), sites, len(heavy))
    gaps = np.square(parents[:, None] - parents).sum(-1)
    np.fill_diagonal(gaps, np.inf)
    together = gaps < TOGETHER**2
    for k in np.flatnonzero(together.any(-1)).tolist():
        others = np.flatnonzero(together[k, rotors.group_of])
        others = len(heavy) + rotors.turning[others]
        more = _interaction(tried[k][None], sites[others], rotors, np.array([k]), others).sum(0)
        best = int((energies[k] + _by_dihedral(rotors, k, more)).argmin())
        _put(rotors, k, tried[k], best, sites, len(heavy))
    placed[:] = sites[len(heavy) :]


def _within_reach(
    parents: np.ndarray, sites: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Groups and sites of the pairs within reach, ascending."""
    squares = np.square(sites).sum(-1)
    gaps = squares + np.square(parents).sum(-1)[:, None] - 2 * parents @ sites.T
    group, site = np.nonzero((gaps < REACH**2) & seen)
    return group, site


def _tried(rotors: _Rotors, sites: np.ndarray) -> np.ndarray:
    """Hydrogens of all dihedrals of all groups [K, TRIED, 3]; sites [K, 3, 3]."""
    found = np.empty((len(sites), TRIED, 3))
    for kind, count in sorted({*zip(rotors.kinds, rotors.counts, strict=True)}):
        alike = [
            k
            for k, its in enumerate(zip(rotors.kinds, rotors.counts, strict=True))
            if its == (kind, count)
        ]
        degrees = _grid(kind, count)[0]
        own = np.moveaxis(sites[alike], 1, 0)[:, :, None]
        own = np.broadcast_to(own, (3, len(alike), len(degrees), 3))
        turned = turned_about(kind, count, own, np.broadcast_to(degrees, own.shape[1:3]))
        found[alike] = turned.reshape(len(alike), TRIED, 3)
    return found


def _by_dihedral(rotors: _Rotors, k: int, energy: np.ndarray) -> np.ndarray:
    """Energies [TRIED] of the hydrogens of group ``k`` as those of its dihedrals."""
    found: np.ndarray = energy.reshape(-1, rotors.counts[k]).sum(-1)
    return found


def _interaction(
    tried: np.ndarray, others: np.ndarray, rotors: _Rotors, group: np.ndarray, site: np.ndarray
) -> np.ndarray:
    """Energy [P, TRIED] of hydrogens [P or 1, TRIED, 3] with sites [P, 3]."""
    gaps = np.square(tried[..., 0] - others[:, None, 0])
    for axis in (1, 2):
        gaps += np.square(tried[..., axis] - others[:, None, axis])
    inverse = 1 / gaps.clip(0.005)
    ratio = (RADIUS["H"] + rotors.radius[site][:, None]) ** 2 * inverse
    ratio = ratio * ratio * ratio
    steric = np.sqrt(WELL["H"] * rotors.well[site])[:, None] * ratio * (ratio - 2)
    found: np.ndarray = (
        steric + (COULOMB * rotors.polar[group] * rotors.charge[site])[:, None] * inverse
    )
    return found


@lru_cache(maxsize=16)
def _grid(kind: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Dihedrals of the first hydrogen in degrees, and their torsion energy."""
    number, turn = TRIED // count, 120.0 if count == 3 else 360.0
    degrees = turn / number * np.arange(number)
    folds, height = BARRIER[kind]
    sign = -1.0 if kind == "phenol" else 1.0
    return degrees, height / 2 * (1 + sign * np.cos(np.deg2rad(folds * degrees)))


def _put(
    rotors: _Rotors, k: int, tried: np.ndarray, best: int, sites: np.ndarray, heavy: int
) -> None:
    start, count = heavy + rotors.first[k], rotors.counts[k]
    sites[start : start + count] = tried[best * count : (best + 1) * count]


@lru_cache(maxsize=8)
def _rotors(hydrogens: Hydrogens) -> _Rotors:
    topology = hydrogens.topology
    firsts = np.cumsum([0, *(len(group.names) for group in hydrogens.groups)])
    turning = [i for i, group in enumerate(hydrogens.groups) if group.kind in TURNING]
    chosen = [hydrogens.groups[i] for i in turning]
    within = _within_two_bonds(topology, [group.atoms[0] for group in chosen])
    seen = np.ones((len(chosen), topology.n_atoms + len(hydrogens.names)), dtype=bool)
    for k, atoms in enumerate(within):
        seen[k, list(atoms)] = False
        inner = _within_one_bond(topology, chosen[k].atoms[0])
        seen[k, topology.n_atoms :] = ~np.isin(hydrogens.parent, list(inner))
    counts = [len(group.names) for group in chosen]
    own = [np.arange(firsts[i], firsts[i + 1]) for i in turning]
    every = np.concatenate([np.zeros(0, dtype=np.int64), *own])
    seen[:, topology.n_atoms + every] = False
    charge, radius, well = _parameters(hydrogens)
    return _Rotors(
        [group.kind for group in chosen],
        counts,
        np.array([group.atoms for group in chosen], dtype=np.int64).reshape(-1, 3),
        firsts[turning],
        seen,
        every,
        np.repeat(np.arange(len(chosen)), counts),
        [_grid(group.kind, len(group.names))[1] for group in chosen],
        np.array([POLAR[group.kind] for group in chosen]),
        charge,
        radius,
        well,
    )


@lru_cache(maxsize=8)
def _neighbours(topology: Topology) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(topology.n_atoms)]
    for a, b in topology.bonds.tolist():
        found[a].add(b)
        found[b].add(a)
    return found


def _within_one_bond(topology: Topology, atom: int) -> set[int]:
    return {atom, *_neighbours(topology)[atom]}


def _within_two_bonds(topology: Topology, atoms: list[int]) -> list[set[int]]:
    linked = _neighbours(topology)
    return [
        {atom, *linked[atom], *(far for near in linked[atom] for far in linked[near])}
        for atom in atoms
    ]


def _parameters(hydrogens: Hydrogens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Charge, radius and well of every site [S]."""
    topology = hydrogens.topology
    kinds, charges = list(topology.elements), []
    for atom, name in enumerate(topology.atom_names):
        residue = topology.sequence[topology.atom_residue[atom]]
        charges.append(CHARGED.get((residue, name), 0.55 if name == "C" else BY_ELEMENT[name[0]]))
    for parent in hydrogens.parent.tolist():
        polar = topology.elements[parent] != "C"
        kinds.append("H" if polar else "HC")
        charges.append(0.33 if polar else 0.05)
    return (
        np.array(charges),
        np.array([RADIUS[kind] for kind in kinds]),
        np.array([WELL[kind] for kind in kinds]),
    )
