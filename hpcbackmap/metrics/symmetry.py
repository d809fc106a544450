"""Atoms that chemistry cannot tell apart: their names are exchanged where that fits the truth better."""

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import angle_between, dihedrals

__all__ = ["renamed_like"]

EQUIVALENT = {
    "ARG": (("CD", "NE", "CZ", "NH1"), (("NH1", "NH2"),)),
    "ASP": (("CA", "CB", "CG", "OD1"), (("OD1", "OD2"),)),
    "GLU": (("CB", "CG", "CD", "OE1"), (("OE1", "OE2"),)),
    "PHE": (("CA", "CB", "CG", "CD1"), (("CD1", "CD2"), ("CE1", "CE2"))),
    "TYR": (("CA", "CB", "CG", "CD1"), (("CD1", "CD2"), ("CE1", "CE2"))),
}
"""The torsion that tells the two namings apart, and the names that are exchanged."""


def renamed_like(topology: Topology, generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``generated`` [F, A, 3] with equivalent atoms named as in ``truth`` [F, A, 3].

    Exchanged where the torsion of the other naming is nearer to the truth's.
    """
    index, torsions, others, swaps = topology.atom_index, [], [], []
    for i, name in enumerate(topology.sequence):
        if name in EQUIVALENT:
            torsion, exchanged = EQUIVALENT[name]
            torsions.append([index[i, atom] for atom in torsion])
            others.append([index[i, atom] for atom in (*torsion[:3], exchanged[0][1])])
            swaps.append([(index[i, a], index[i, b]) for a, b in exchanged])
    if not torsions:
        return generated
    true = dihedrals(truth, np.array(torsions))
    as_named, as_exchanged = (
        angle_between(dihedrals(generated, np.array(atoms)), true, np.array(False))
        for atoms in (torsions, others)
    )
    better = as_exchanged < as_named
    order = np.tile(np.arange(topology.n_atoms), (len(generated), 1))
    for k, pairs in enumerate(swaps):
        for a, b in pairs:
            order[better[:, k], a], order[better[:, k], b] = b, a
    return np.take_along_axis(generated, order[:, :, None], axis=1)
