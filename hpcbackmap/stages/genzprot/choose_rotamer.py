"""How the torsion of a side chain is picked from its distribution."""

from collections.abc import Callable

from torch import Tensor

from hpcbackmap.stages.genzprot.torsions import angle_of_mode, draw, without

__all__ = ["Pick", "drawn", "rotamer"]

Pick = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Number of a chi, its logits [n, bins], frame and residue [n] of the rows: torsions to use, rad [n]."""


def rotamer(*skipped: int) -> Pick:
    """Picks the most likely rotamer after ``skipped`` more likely ones of chi 1 and of chi 2."""

    def pick(k: int, logits: Tensor, frame: Tensor, residue: Tensor) -> Tensor:
        for _ in range(skipped[k] if k < len(skipped) else 0):
            logits = without(logits, angle_of_mode(logits))
        return angle_of_mode(logits)

    return pick


def drawn(columns: Tensor) -> Pick:
    """Picks what standard normals ``columns`` [F, R, N_CHI] stand for."""
    return lambda k, logits, frame, residue: draw(logits, columns[frame, residue, k])
