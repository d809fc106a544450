"""C-alpha atoms from one or two beads per residue: two rounds, each in local frames along the chain.

The first round sees the beads in frames of the beads, the second beads and C-alpha atoms in frames of the
C-alpha atoms that the first has found. Every residue sees those `WINDOW` before and after it, their types,
and nothing else. Handed: a mirrored trace does not give a mirrored answer. Shapes: F frames, R residues; nm.
"""

from typing import cast

import torch
from torch import Tensor, nn

from hpcbackmap.protein.residues import RESIDUES, TRANS
from hpcbackmap.stages.layers.geometry import local_frames

__all__ = ["WINDOW", "CalphaNetwork", "along_chain"]

WINDOW = 4
"""Residues before and after each one that it sees."""
SPAN = 2 * WINDOW + 1
TYPES = 6
"""Numbers that a residue type is known by."""
UNIT = TRANS
"""nm; lengths are seen in this unit."""


def along_chain(bonded: Tensor) -> tuple[Tensor, Tensor]:
    """Residues of each window and which there are, [R, SPAN]; bonded [R]: to the residue before."""
    n = len(bonded)
    stretch = (~bonded).long().cumsum(0)
    index = torch.arange(n, device=bonded.device).unsqueeze(-1)
    index = index + torch.arange(-WINDOW, WINDOW + 1, device=bonded.device)
    there = (index >= 0) & (index < n)
    index = index.clamp(0, n - 1)
    return index, there & (stretch[index] == stretch.unsqueeze(-1))


def _partners(bonded: Tensor) -> tuple[Tensor, Tensor]:
    """Residues that give the local frame: those beside it, at the ends of a chain the two next to the end."""
    n = len(bonded)
    here = torch.arange(n, device=bonded.device)
    leads = torch.cat([bonded[1:], bonded.new_zeros(1)])
    before, after = here - 1, here + 1
    first, last = ~bonded & leads, bonded & ~leads
    before, after = (
        torch.where(first, here + 2, torch.where(last, here - 2, before)),
        torch.where(last, here - 1, after),
    )
    return before.clamp(0, n - 1), after.clamp(0, n - 1)


class CalphaNetwork(nn.Module):
    """sites: beads per residue, of which the first lies in the backbone if any does."""

    def __init__(self, sites: int, width: int = 96):
        super().__init__()
        self.sites, self.width = sites, width
        self.types = nn.Embedding(len(RESIDUES), TYPES)
        self.rounds = nn.ModuleList(
            nn.Sequential(
                nn.Linear(SPAN * (3 * seen + TYPES + 1), width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, 3),
            )
            for seen in (sites, sites + 1)
        )
        for layer in self.rounds:
            last = cast("nn.Sequential", layer)[-1]
            nn.init.zeros_(cast("nn.Linear", last).weight)
            nn.init.zeros_(cast("nn.Linear", last).bias)

    def forward(self, beads: Tensor, types: Tensor, bonded: Tensor) -> list[Tensor]:
        """C-alpha positions [F, R, 3] after each round.

        beads [F, R, sites, 3]; types [R]; bonded [R]. Stretches of one or two residues have no frame of their
        own; their answer means little.
        """
        index, there = along_chain(bonded)
        partners = _partners(bonded)
        kinds = torch.cat([self.types(types[index]), there.unsqueeze(-1).to(beads)], -1)
        kinds = (kinds * there.unsqueeze(-1)).flatten(1).expand(len(beads), -1, -1)
        centre, found = beads[:, :, 0], []
        points = beads
        for layer in self.rounds:
            frames = local_frames(centre, *partners)
            gap = points[:, index] - centre[:, :, None, None]
            gap = gap * (there[..., None, None].to(gap) / UNIT)
            local = torch.einsum("frij,frksj->frksi", frames, gap).flatten(2)
            move = UNIT * layer(torch.cat([local, kinds], -1))
            centre = centre + torch.einsum("frij,fri->frj", frames, move)
            found.append(centre)
            points = torch.cat([beads, centre.unsqueeze(2)], 2)
        return found
