"""What can be wrong with a frame: broken bonds, D residues, cis peptides, odd C-alpha steps."""

import mdtraj
import numpy as np


def flaws(ensemble):
    """The number of frames that fail each check; empty when all is well."""
    top = ensemble.topology
    bonds = np.array([(a.index, b.index) for a, b in top.bonds])
    lengths = mdtraj.compute_distances(ensemble, bonds)
    omega = np.abs(mdtraj.compute_omega(ensemble)[1])
    alphas = top.select("name CA")
    steps = mdtraj.compute_distances(ensemble, np.stack([alphas[:-1], alphas[1:]], axis=1))
    failed = {
        "not finite": ~np.isfinite(ensemble.xyz).all(axis=(1, 2)),
        "broken bond": ((lengths < 0.11) | (lengths > 0.20)).any(axis=1),
        "D residue": (handedness(ensemble) <= 0).any(axis=1),
        "cis peptide": (omega < np.pi / 2).any(axis=1),
        "C-alpha step outside 0.34-0.42 nm": ((steps < 0.34) | (steps > 0.42)).any(axis=1),
    }
    return {name: int(bad.sum()) for name, bad in failed.items() if bad.any()}


def handedness(ensemble):
    """Signed volume at each stereocentre [frames, centres]: positive for L, and for Ile CB."""
    name = [{a.name: a.index for a in r.atoms} for r in ensemble.topology.residues]
    centres = [[n[k] for k in ("CA", "N", "C", "CB")] for n in name if "CB" in n]
    isoleucines = [n for n in name if "CG1" in n and "CD1" in n]
    centres += [[n[k] for k in ("CB", "CA", "CG1", "CG2")] for n in isoleucines]
    x = ensemble.xyz[:, np.array(centres)]
    a, b, c = (x[:, :, i] - x[:, :, 0] for i in (1, 2, 3))
    return (np.cross(a, b) * c).sum(axis=-1)
