"""What an input holds beside the C-alpha trace: atoms to keep, beads to reproduce.

Shapes: F frames, R residues, M beads of a residue at the most; positions in nm.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS
from hpcbackmap.resolution.representations.reading import Reading

__all__ = ["Given", "boxed", "given_of"]


@dataclass(frozen=True, eq=False)
class Given:
    """known: N, CA, C, O and CB of each residue, float32 [F, R, 5, 3], NaN where they are not known; or None.

    beads: positions of the side-chain beads of each residue, float32 [F, R, M, 3], NaN where there is none;
    or None. shares: of each atom slot of the residue in each bead [R, M, MAX_ATOMS]. tolerance: nm, their
    standard deviation. cells: of the periodic box, [F, 3, 3], zeros where a frame has none; or None.
    """

    known: Tensor | None = None
    beads: Tensor | None = None
    shares: Tensor | None = None
    tolerance: float = 0.0
    cells: Tensor | None = None

    def frames(self, chosen: slice) -> "Given":
        """The same of some frames."""
        cells = None if self.cells is None else self.cells[chosen]
        return replace(self._each(lambda x: x[chosen]), cells=cells)

    def moved(self, shift: np.ndarray) -> "Given":
        """The same moved by ``shift`` [F, 1, 3]."""
        by = torch.as_tensor(shift).unsqueeze(1)
        return self._each(lambda x: (x + by).to(x.dtype))

    def to(self, device: torch.device) -> "Given":
        cells = None if self.cells is None else self.cells.to(device)
        moved = replace(self._each(lambda x: x.to(device)), cells=cells)
        return moved if self.shares is None else replace(moved, shares=self.shares.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Given":
        known = None if self.known is None else change(self.known)
        beads = None if self.beads is None else change(self.beads)
        return replace(self, known=known, beads=beads)


def given_of(
    reading: Reading, positions: np.ndarray, cells: np.ndarray | None = None
) -> Given | None:
    """What frames [F, P, 3] of an input so read hold beside C-alpha atoms; None if nothing."""
    return boxed(_held(reading, positions), cells)


def boxed(held: Given | None, cells: np.ndarray | None) -> Given | None:
    """``held`` with the boxes [F, 3, 3] of its frames, where they have any."""
    if cells is None or not cells.any():
        return held
    return replace(held or Given(), cells=torch.from_numpy(cells.astype(np.float32)))


def _held(reading: Reading, positions: np.ndarray) -> Given | None:
    given = reading.known(positions)
    known = None if given is None else torch.from_numpy(given)
    if reading.beads is None:
        return None if known is None else Given(known)
    residue, n = reading.beads.residue, reading.topology.n_residues
    rank = np.zeros(len(residue), dtype=np.int64)
    seen = np.zeros(n, dtype=np.int64)
    for bead, owner in enumerate(residue):
        rank[bead] = seen[owner]
        seen[owner] += 1
    most = int(seen.max())
    beads = np.full((len(positions), n, most, 3), np.nan, dtype=np.float32)
    beads[:, residue, rank] = reading.restraints(positions)
    shares = np.zeros((n, most, MAX_ATOMS), dtype=np.float32)
    shares[residue, rank] = reading.beads.shares
    return Given(known, torch.from_numpy(beads), torch.from_numpy(shares), reading.beads.tolerance)
