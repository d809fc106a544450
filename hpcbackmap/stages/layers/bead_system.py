"""Static description of a molecule for stages of positions in space: particles, beads, bonds, composition."""

import numpy as np

from hpcbackmap.protein.residues import RESIDUE_INDEX, RESIDUES
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.system import Beads, Particles, Plain, System

__all__ = ["PARTICLE_FEATURES", "BeadSystem", "bead_fields", "bead_system"]

PARTICLE_FEATURES = len(RESIDUES) + 15 + 4
"""Residue composition, atom slot, place along the chain within the bead (4 harmonics)."""


class BeadSystem(System):
    """N fine particles and B beads of one molecule at two adjacent resolutions.

    weight [N]: of each particle in its bead. particle [N, PARTICLE_FEATURES], composition [B, types + 1]: what
    they are made of. slot [N]: place of each particle within its bead. members [B]: particles of each bead;
    freedom [B]: directions that they leave open. chain, place [B]: chain of each bead, and place along it.
    bond_index [bonds, 2]: covalent bonds (heavy atoms) or consecutive bonded C-alpha atoms. bead_before,
    bead_after [B]: beads that orient the frame.
    """

    weight: Plain
    particle: Plain
    composition: Plain
    slot: Plain
    members: Plain
    freedom: Plain
    chain: Plain
    place: Plain
    bond_index: Particles
    bead_before: Beads
    bead_after: Beads


def bead_system(ladder: Ladder, fine: str, coarse: str) -> BeadSystem:
    """Raises InputError for an unknown resolution."""
    particles, beads = ladder.n_particles(fine), ladder.n_particles(coarse)
    return BeadSystem.of_molecule(particles, beads, **bead_fields(ladder, fine, coarse))


def bead_fields(ladder: Ladder, fine: str, coarse: str) -> dict[str, np.ndarray]:
    """The fields of a `BeadSystem`."""
    mapping = ladder.mapping(coarse)
    composed = ladder.composed(fine)
    topology = ladder.topology
    composition = np.zeros((composed.n_coarse, len(RESIDUES)), dtype=np.float32)
    types = np.array([RESIDUE_INDEX[name] for name in topology.sequence])
    np.add.at(composition, (composed.bead, types[topology.atom_residue]), 1.0)
    composition /= composition.sum(1, keepdims=True)
    sequence = _mean_place(composed.bead, topology.atom_residue)
    order = _mean_place(mapping.bead, sequence)
    n, members = mapping.n_coarse, np.bincount(mapping.bead)
    return {
        "bead_of": mapping.bead,
        "weight": mapping.weight.astype(np.float32),
        "particle": _particle_features(ladder, fine, composition, sequence, mapping.bead, order),
        "composition": _bead_composition(composition, mapping.bead, n),
        "slot": _slots(mapping.bead),
        "members": members,
        "freedom": 3.0 * (members - 1).astype(np.float32),
        "chain": _chain_of_beads(ladder, composed.bead, mapping.bead, n),
        "place": np.argsort(np.argsort(order, kind="stable"), kind="stable"),
        "bond_index": _bonds(ladder, fine),
        **_partners(order),
    }


def _slots(bead: np.ndarray) -> np.ndarray:
    """Place of each particle within its bead."""
    order = np.argsort(bead, kind="stable")
    slot = np.empty(len(bead), dtype=np.int64)
    slot[order] = np.arange(len(bead)) - np.searchsorted(bead[order], bead[order])
    return slot


def _mean_place(groups: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.bincount(groups, weights=place) / np.bincount(groups)


def _particle_features(
    ladder: Ladder,
    fine: str,
    composition: np.ndarray,
    sequence: np.ndarray,
    bead: np.ndarray,
    order: np.ndarray,
) -> np.ndarray:
    slot = np.zeros((len(composition), 15), dtype=np.float32)
    if ladder.index(fine) == 0:
        first = np.searchsorted(ladder.topology.atom_residue, np.arange(ladder.topology.n_residues))
        inside = np.arange(len(composition)) - first[ladder.topology.atom_residue]
        slot[np.arange(len(composition)), inside] = 1
    size = np.bincount(bead)[bead]
    offset = (sequence - order[bead]) / np.maximum(size, 1)
    waves = [np.sin(np.pi * offset), np.cos(np.pi * offset), np.sin(2 * np.pi * offset), offset]
    return np.concatenate([composition, slot, np.stack(waves, 1)], 1).astype(np.float32)


def _bead_composition(composition: np.ndarray, bead: np.ndarray, n: int) -> np.ndarray:
    total = np.zeros((n, composition.shape[1]), dtype=np.float32)
    np.add.at(total, bead, composition)
    size = np.bincount(bead).astype(np.float32)[:, None]
    return np.concatenate([total / size, np.log(size)], 1)


def _bonds(ladder: Ladder, fine: str) -> np.ndarray:
    if ladder.index(fine) == 0:
        return ladder.topology.bonds
    if not ladder.is_calpha(fine):
        return np.zeros((0, 2), dtype=np.int64)
    second = np.flatnonzero(ladder.topology.bonded)
    return np.stack([second - 1, second], 1)


def _chain_of_beads(ladder: Ladder, atoms: np.ndarray, bead: np.ndarray, n: int) -> np.ndarray:
    topology = ladder.topology
    chain = np.zeros(n, dtype=np.int64)
    chain[bead[atoms]] = np.array(topology.chain_index)[topology.atom_residue]
    return chain


def _partners(order: np.ndarray) -> dict[str, np.ndarray]:
    """The two beads that orient each bead's frame: its neighbours along the chain, or the next two."""
    rank = np.argsort(order, kind="stable")
    before, after = np.empty_like(rank), np.empty_like(rank)
    before[rank[1:]], after[rank[:-1]] = rank[:-1], rank[1:]
    before[rank[0]], after[rank[-1]] = rank[2], rank[-2]
    before[rank[-1]] = rank[-3]
    after[rank[0]] = rank[1]
    return {"bead_before": before, "bead_after": after}
