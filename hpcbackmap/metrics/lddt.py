"""lDDT: distances inside the truth that the generated structure preserves, without superposing.

Mariani et al., Bioinformatics 29, 2722 (2013): all pairs of atoms of different residues closer than
15 Å in the truth; the share whose distance is off by less than 0.5, 1, 2 and 4 Å, averaged over the
four. Names of equivalent atoms (see `symmetry`) are taken as they fit better.
"""

from collections.abc import Iterator

import numpy as np

__all__ = ["lddt"]

RADIUS = 1.5
"""nm."""
THRESHOLDS = (0.05, 0.1, 0.2, 0.4)
"""nm."""
CHUNK = 256
"""Atoms whose distances to the atoms near them are held at once."""


def lddt(truth: np.ndarray, members: np.ndarray, residue: np.ndarray) -> np.ndarray:
    """lDDT of each member, 0 to 1, [M]; NaN if the truth has no pair within the radius.

    truth: [N, 3], members: [M, N, 3], nm; residue [N]: pairs within one are left out.
    """
    from scipy.spatial.distance import cdist

    preserved, pairs = np.zeros(len(members)), 0
    members = members.astype(np.float64)
    for chunk, near in _neighbourhoods(truth):
        true = cdist(truth[chunk], truth[near])
        counted = (true < RADIUS) & (residue[chunk, None] != residue[None, near])
        counted &= np.arange(len(truth))[chunk, None] < near[None]
        flat = np.flatnonzero(counted)
        true = true.ravel()[flat]
        pairs += len(flat)
        for m, member in enumerate(members):
            off = np.abs(cdist(member[chunk], member[near]).ravel()[flat] - true)
            preserved[m] += sum(np.count_nonzero(off < limit) for limit in THRESHOLDS)
    return preserved / (len(THRESHOLDS) * pairs) if pairs else np.full(len(members), np.nan)


def _neighbourhoods(truth: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Runs of atoms, and the atoms from there on that lie within the radius of the box around them."""
    for start in range(0, len(truth), CHUNK):
        chunk = slice(start, start + CHUNK)
        low, high = truth[chunk].min(0) - RADIUS, truth[chunk].max(0) + RADIUS
        later = truth[start:]
        yield chunk, start + np.flatnonzero(((later >= low) & (later <= high)).all(1))
