"""Whether beads of one per residue are C-alpha atoms, centres of mass or backbone beads: by their distances.

Neighbouring C-alpha atoms are 0.380 nm apart (cis 0.295), in a model with harmonic bonds give or take 0.018.
Centres of mass of neighbouring residues are as far apart as both residues are long, give or take 0.06;
centres of backbones 0.334, give or take 0.03. Each bond speaks for one of these; stretches of a chain may
differ, as in models that have centres of mass in domains and C-alpha atoms in linkers.
"""

import numpy as np

from hpcbackmap.protein.residues import CIS, RESIDUE_INDEX, RESIDUES, TRANS

__all__ = ["KINDS", "bond_nats", "kinds_of_residues"]

KINDS = ("ca", "com", "bb")
CIS_SHARE = 0.004
SPREADS = (0.006, 0.010, 0.015, 0.020, 0.028, 0.040, 0.055, 0.070)
"""Standard deviations that C-alpha distances of a file may have, nm; the likeliest is taken."""
COM_SPREAD = 0.060
BB, BB_SPREAD = 0.334, 0.030
STRAY = 0.01
"""Share of bonds that are none of this, between 0 and 1 nm."""
SWITCH = 12.0
"""Nats that a change of kind along a chain must be worth."""

_REACH = {
    "ALA": 0.183, "ARG": 0.336, "ASN": 0.243, "ASP": 0.241, "CYS": 0.228, "GLN": 0.275, "GLU": 0.277, "GLY":
    0.170, "HIS": 0.270, "ILE": 0.236, "LEU": 0.245, "LYS": 0.285, "MET": 0.279, "PHE": 0.290, "PRO": 0.191,
    "SER": 0.201, "THR": 0.215, "TRP": 0.334, "TYR": 0.314, "VAL": 0.214,
}  # fmt: skip
"""Least-squares share of each residue in the distance of neighbouring centres of mass, nm; 530 chains of the
PDB.
"""
REACH = np.array([_REACH[name] for name in RESIDUES])


def bond_nats(lengths: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Log likelihood of bond lengths [F, L] under each of `KINDS`: nats [F, L, 3].

    first, second: residue types of the two beads [L]. Lengths that are no numbers speak for nothing.
    """
    known = np.isfinite(lengths)
    lengths = np.where(known, lengths, TRANS)
    com = _mixed(_normal(lengths, REACH[first] + REACH[second], COM_SPREAD))
    tried = [_calpha(lengths, spread) for spread in SPREADS]
    calpha = max(tried, key=lambda nats: np.logaddexp(nats, com).sum())
    nats = np.stack([calpha, com, _mixed(_normal(lengths, BB, BB_SPREAD))], -1)
    return np.where(known[..., None], nats, 0.0)


def _calpha(lengths: np.ndarray, spread: float) -> np.ndarray:
    trans, cis = _normal(lengths, TRANS, spread), _normal(lengths, CIS, max(spread, 0.01))
    return _mixed((1 - CIS_SHARE) * trans + CIS_SHARE * cis)


def _normal(value: np.ndarray, mean: np.ndarray | float, spread: np.ndarray | float) -> np.ndarray:
    found: np.ndarray = np.exp(-0.5 * ((value - mean) / spread) ** 2) / (
        spread * np.sqrt(2 * np.pi)
    )
    return found


def _mixed(density: np.ndarray) -> np.ndarray:
    return np.log((1 - STRAY) * density + STRAY)


def kinds_of_residues(nats: np.ndarray, residue: np.ndarray, count: int) -> np.ndarray:
    """Most likely kind (column of ``nats``) of each of ``count`` residues, changing as seldom as it pays.

    nats [L, kinds]: of the bond between ``residue`` [L] and the one after it, whose kinds are then alike.
    Residues without a bond follow the one before.
    """
    of_residue = np.zeros((count, nats.shape[1]))
    np.add.at(of_residue, residue, nats / 2)
    np.add.at(of_residue, residue + 1, nats / 2)
    score, back = of_residue[0], np.zeros((count, nats.shape[1]), dtype=np.int64)
    for i in range(1, count):
        moved = score.max() - SWITCH
        back[i] = np.where(score >= moved, np.arange(len(score)), score.argmax())
        score = np.maximum(score, moved) + of_residue[i]
    kinds = np.empty(count, dtype=np.int64)
    kinds[-1] = score.argmax()
    for i in range(count - 1, 0, -1):
        kinds[i - 1] = back[i, kinds[i]]
    return kinds


def types_of(sequence: tuple[str, ...]) -> np.ndarray:
    """Residue types of three-letter names, int64."""
    return np.array([RESIDUE_INDEX[name] for name in sequence])
