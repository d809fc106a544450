"""How the torsion of a side chain is picked from its distribution."""

from collections.abc import Callable

from torch import Tensor

from hpcbackmap.stages.genzprot.torsions import angle_of_mode, draw

__all__ = ["Pick", "drawn", "most_likely"]

Pick = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Number of a chi, its logits [n, bins], frame and residue [n] of the rows: torsions to use, rad [n]."""


def most_likely(_k: int, logits: Tensor, _frame: Tensor, _residue: Tensor) -> Tensor:
    """Picks the most likely rotamer."""
    return angle_of_mode(logits)


def drawn(columns: Tensor) -> Pick:
    """Picks what standard normals ``columns`` [F, R, N_CHI] stand for."""
    return lambda k, logits, frame, residue: draw(logits, columns[frame, residue, k])
