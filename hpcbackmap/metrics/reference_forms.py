"""Measures in the form that the reference methods print, to compare with their numbers.

Clashing residues: DiAMoNDBack and the multi-step notebook. Steric pairs and interaction score: GenZProt.
"""

import numpy as np

from hpcbackmap.metrics.close_pairs import CloseAtoms, close_atoms, pair_keys
from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology

__all__ = [
    "clashing_residues_reference",
    "interaction_pairs",
    "interaction_score",
    "steric_pair_ratio",
]

CLASH = 0.12
NEIGHBOURHOOD = 0.9
"""nm; pairs of the truth that the steric ratio counts."""
POLAR_RANGE = (0.093, 0.33)
"""nm; hydrogen bonds and salt bridges."""
POLAR = {"NO", "NN", "OO", "NS", "OS", "SS"}
STACKING_RANGE = (0.2, 0.55)
"""nm; between the middles of CD1 and CD2."""
POLAR_LIMIT, STACKING_LIMIT = 0.4, 0.6
"""nm; distances beyond count as lost."""


def clashing_residues_reference(topology: Topology, close: CloseAtoms) -> float:
    """Share of residues with an atom within 1.2 Å of one two or more residues away.

    Of the next residue, side-chain atoms only, and neither may be glycine. close: all pairs of a frame
    within 1.2 Å at least.
    """
    pairs = close.pairs[close.distances < CLASH]
    residue = topology.atom_residue[pairs]
    apart = residue[:, 1] - residue[:, 0]
    side = ~np.isin(topology.atom_names, (*BACKBONE, "OXT"))
    glycine = np.array(topology.sequence) == "GLY"
    neighbours = (apart == 1) & side[pairs].all(1) & ~glycine[residue].any(1)
    clashing = residue[(apart >= 2) | neighbours]
    return len(np.unique(clashing)) / topology.n_residues


def steric_pair_ratio(
    topology: Topology,
    generated: np.ndarray,
    close: CloseAtoms,
    truth: np.ndarray,
    n_near: int,
    bonded_keys: np.ndarray,
) -> float:
    """Share of the truth's neighbours closer than 1.2 Å, plus that of the N-O pairs across links.

    generated, truth: [A, 3]; close: pairs of ``generated`` within 1.2 Å at least; n_near: pairs of
    the truth within `NEIGHBOURHOOD`; bonded_keys: pairs within two bonds (`contacts`), left out.
    """
    pairs = close.pairs[close.distances < CLASH]
    pairs = pairs[~np.isin(pair_keys(pairs, topology.n_atoms), bonded_keys)]
    true = np.linalg.norm(truth[pairs[:, 0]] - truth[pairs[:, 1]], axis=-1)
    share = np.count_nonzero(true < NEIGHBOURHOOD) / max(1, n_near - len(bonded_keys))
    links = np.flatnonzero(topology.bonded).tolist()
    nitrogen = [topology.atom_index[i, "N"] for i in links]
    oxygen = [topology.atom_index[i - 1, "O"] for i in links]
    across = np.linalg.norm(generated[nitrogen] - generated[oxygen], axis=-1)
    return share + (np.count_nonzero(across < CLASH) / len(links) if len(links) else 0.0)


def interaction_pairs(topology: Topology, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polar contacts [P, 2] (atoms) and stacked rings [S, 2, 2] (CD1 and CD2 of both) of [A, 3]."""
    close = close_atoms(truth, POLAR_RANGE[1])
    first, second = close.pairs.T
    residue = topology.atom_residue
    outside = ~np.isin(topology.atom_names, BACKBONE)
    elements = np.array(topology.elements)
    kinds = np.sort(elements[close.pairs], axis=1)
    polar = np.isin(np.char.add(kinds[:, 0], kinds[:, 1]), list(POLAR))
    polar &= (np.abs(residue[first] - residue[second]) > 1) & (outside[first] | outside[second])
    polar &= close.distances > POLAR_RANGE[0]
    rings = np.array(
        [
            [topology.atom_index[i, "CD1"], topology.atom_index[i, "CD2"]]
            for i, name in enumerate(topology.sequence)
            if name in ("PHE", "TRP", "TYR")
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    stacked = np.empty((0, 2), dtype=np.int64)
    if len(rings) > 1:
        found = close_atoms(truth[rings].mean(1), STACKING_RANGE[1])
        stacked = found.pairs[found.distances >= STACKING_RANGE[0]]
    return close.pairs[polar], rings[stacked].reshape(-1, 2, 2)


def interaction_score(pairs: tuple[np.ndarray, np.ndarray], generated: np.ndarray) -> float:
    """Mean distance (nm) by which the pairs of `interaction_pairs` are lost in ``generated`` [A, 3].

    0 if all are kept; NaN if the truth has none.
    """
    polar, stacked = pairs
    if not len(polar) + len(stacked):
        return float("nan")
    apart = np.linalg.norm(generated[polar[:, 0]] - generated[polar[:, 1]], axis=-1)
    centres = generated[stacked].mean(2)
    rings_apart = np.linalg.norm(centres[:, 0] - centres[:, 1], axis=-1)
    lost = np.maximum(apart - POLAR_LIMIT, 0).sum()
    lost += np.maximum(rings_apart - STACKING_LIMIT, 0).sum()
    return float(lost / (len(polar) + len(stacked)))
