"""Distribution of the torsions of open chain ends: N of a first residue, C and O of a last one."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.torsions import bin_of
from hpcbackmap.stages.layers.on_host import places

if TYPE_CHECKING:
    from hpcbackmap.stages.genzprot.system import ResidueSystem

__all__ = ["BINS", "END_ROLES", "Choose", "EndHead"]

BINS = 36
END_ROLES = (Role.START_N, Role.END_C, Role.END_O)

Choose = Callable[[Role, Tensor, Tensor], Tensor]
"""Torsions [F, n] for a role, its residues [n] and their logits [F, n, BINS]."""


class EndHead(nn.Module):
    """Each torsion given the features of its residue, the planes beside it and the end torsions before it."""

    def __init__(self, width: int):
        super().__init__()
        self.context = nn.Linear(width, width)
        self.own_plane = nn.Embedding(BINS, width)
        self.previous_plane = nn.Embedding(BINS, width)
        self.earlier = nn.ModuleList(nn.Embedding(BINS, width) for _ in END_ROLES)
        self.heads = nn.ModuleList(nn.Linear(width, BINS) for _ in END_ROLES)

    def torsions(
        self,
        h: Tensor,
        planes: Tensor,
        system: "ResidueSystem",
        choose: Choose,
    ) -> dict[Role, tuple[Tensor, Tensor]]:
        """Residues [n] and torsions [F, n] of each role, as ``choose`` takes them.

        Not ``forward``: ZeRO 3 reads what that returns, and stumbles over these keys.
        """
        context = torch.zeros_like(h)
        found = {}
        for k, role in enumerate(END_ROLES):
            (residues,) = places(system.torsion_mask[:, role], system.torsions[role])
            before = system.bead_previous[residues]
            own = self.own_plane(bin_of(planes[:, residues], BINS)) * _column(
                system.leads[residues]
            )
            previous = self.previous_plane(bin_of(planes[:, before], BINS))
            here = self.context(h[:, residues]) + own + previous * _column(system.bonded[residues])
            logits = self.heads[k](nn.functional.silu(here + context[:, residues]))
            angle = choose(role, residues, logits)
            found[role] = residues, angle
            context = context.index_add(1, residues, self.earlier[k](bin_of(angle, BINS)))
        return found


def _column(mask: Tensor) -> Tensor:
    return mask.unsqueeze(-1).float()
