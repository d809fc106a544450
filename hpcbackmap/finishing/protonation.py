"""Which residues carry which hydrogens: by pH, and histidines by what is about their nitrogens.

Shapes: F structures, A heavy atoms, D acceptors or donors; positions nm.
"""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["protonation_states", "states_need_structures"]

MODEL_PKA = {"ASP": 3.67, "GLU": 4.25, "HIS": 6.54, "CYS": 8.55, "LYS": 10.40}
"""Of side chains in pentapeptides of alanine (Thurlkill et al., Protein Sci. 15, 1214, 2006)."""
BELOW = {"ASP": "ASH", "GLU": "GLH", "HIS": "HIP"}
ABOVE = {"CYS": "CYM", "LYS": "LYN"}
REACH = 0.36
"""nm between a nitrogen of histidine and the other end of a hydrogen bond."""
CONE = np.cos(np.deg2rad(50.0))
"""Of the angle between the direction in which the nitrogen binds and the other end."""
DONORS = {"N", "NZ", "NE", "NH1", "NH2", "ND2", "NE2", "NE1"}
BOTH = {"OG", "OG1", "OH"}
"""Hydroxyls give and take: they say nothing about which nitrogen has the hydrogen."""


def states_need_structures(topology: Topology, ph: float) -> bool:
    """Whether `protonation_states` looks at positions."""
    return "HIS" in topology.sequence and ph >= MODEL_PKA["HIS"]


def protonation_states(topology: Topology, heavy: np.ndarray | None, ph: float) -> tuple[str, ...]:
    """AMBER name of each residue's state, empty where it is the usual one.

    heavy: some structures [F, A, 3]; the nitrogen of a histidine that is bonded to an acceptor in more of them
    has the hydrogen, NE2 where that does not tell. Ends of chains but histidines keep their usual states: AMBER
    has no templates of the others there.
    """
    states = []
    for residue, name in enumerate(topology.sequence):
        state = ""
        inner = topology.bonded[residue] and not topology.has_oxt[residue]
        if name in BELOW and ph < MODEL_PKA[name]:
            state = BELOW[name] if inner or name == "HIS" else ""
        elif name in ABOVE and ph > MODEL_PKA[name]:
            bonded = any(residue in pair for pair in topology.disulphides)
            state = ABOVE[name] if inner and not bonded else ""
        elif name == "HIS":
            state = _tautomer(topology, residue, heavy)
        states.append(state)
    return tuple(states)


def _tautomer(topology: Topology, residue: int, heavy: np.ndarray | None) -> str:
    if heavy is None or not len(heavy):
        return "HIE"
    index = topology.atom_index
    delta = _wanted(topology, residue, heavy, index[residue, "ND1"], ("CG", "CE1"))
    epsilon = _wanted(topology, residue, heavy, index[residue, "NE2"], ("CD2", "CE1"))
    return "HID" if (delta - epsilon).sum() > 0 else "HIE"


def _wanted(
    topology: Topology, residue: int, heavy: np.ndarray, nitrogen: int, beside: tuple[str, str]
) -> np.ndarray:
    """Acceptors less donors that a nitrogen can bind, [F]."""
    names, index = topology.atom_names, topology.atom_index
    other = topology.atom_residue != residue
    accepts = [
        a for a in np.flatnonzero(other).tolist() if names[a][0] == "O" and names[a] not in BOTH
    ]
    gives = [
        a for a in np.flatnonzero(other).tolist() if names[a] in DONORS and _gives(topology, a)
    ]
    place = heavy[:, nitrogen].astype(np.float64)
    ring = [heavy[:, index[residue, name]].astype(np.float64) for name in beside]
    outward = place - (ring[0] + ring[1]) / 2
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    found: np.ndarray = _bound(heavy[:, accepts], place, outward) - _bound(
        heavy[:, gives], place, outward
    )
    return found


def _gives(topology: Topology, atom: int) -> bool:
    residue = topology.sequence[topology.atom_residue[atom]]
    name = topology.atom_names[atom]
    return not (name == "N" and residue == "PRO") and not (name == "NE2" and residue == "HIS")


def _bound(others: np.ndarray, place: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """How many of ``others`` [F, D, 3] lie where a nitrogen at ``place`` [F, 3] binds, [F]."""
    gap = others - place[:, None]
    distance = np.linalg.norm(gap, axis=-1)
    along = (gap * outward[:, None]).sum(-1)
    found: np.ndarray = ((distance < REACH) & (along > CONE * distance)).sum(-1)
    return found
