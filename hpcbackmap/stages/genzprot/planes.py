"""Distribution of the peptide planes of a chain: how far each turns about its C-alpha pair.

Two neighbouring planes meet in the angle N-CA-C, which is narrow (111 +- 3 degrees) and known exactly from
their rotations, as is where their O and N lie; so every second plane is drawn on its own and the others given
both neighbours, with a penalty on that angle and on O and N that touch beside what the network learned. Two
planes on either side of a third, drawn without each other, may leave it no good place: so in a member all are
drawn once more, each set given the other (a sweep of Gibbs' sampler, which keeps the joint distribution). Both
planes at a residue whose phi and psi are outside the allowed regions then draw again: so it is an outlier only
where several draws say so.

Shapes: F frames, R residues, n rows (planes of frames), W width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.plane_tables import AngleTables, ones_cos_sin, outliers
from hpcbackmap.stages.genzprot.proline import add_ring_strain
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, centres, draw, harmonics, log_density

__all__ = ["BINS", "PlaneHead"]

BINS = 72
HARMONICS = 4
TOUCH = 0.24
"""nm; O and N of neighbouring planes that are closer overlap."""
TOUCH_SOFTNESS = 0.01
"""Overlap (nm) that costs one nat."""
ANGLE, SPREAD = -0.36, 0.07
"""Starting mean and standard deviation of cos(N-CA-C) under the penalty."""
Rows = tuple[Tensor | slice, ...]
"""Frames and residues [n] each, or all."""


class PlaneHead(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.alone = nn.Linear(width, BINS)
        self.context = nn.Linear(width, width)
        self.previous = nn.Linear(2 * HARMONICS, width, bias=False)
        self.following = nn.Linear(2 * HARMONICS, width, bias=False)
        self.between = nn.Linear(width, BINS)
        kinds = len(RESIDUES)
        self.cosine = nn.Parameter(torch.full((kinds,), ANGLE))
        self.log_stiffness = nn.Parameter(torch.full((kinds,), SPREAD).log() * -2)

    def log_density(
        self, h: Tensor, planes: Tensor, first: Tensor, tables: AngleTables, system: ResidueSystem
    ) -> Tensor:
        """Nats of true rotations ``planes`` [F, R]; ``first`` [F, R]: those drawn on their own."""
        alone = log_density(self.alone(h), planes)
        given = log_density(self.given_others(h, planes, tables, system), planes)
        there = system.torsion_mask[:, Role.PLANE]
        return torch.where(there, torch.where(first, alone, given), 0.0)

    def draw(
        self,
        h: Tensor,
        noise: Tensor,
        again: Tensor,
        first: Tensor,
        tables: AngleTables,
        system: ResidueSystem,
    ) -> Tensor:
        """Rotations [F, R] that standard-normal ``noise`` [F, R] stands for.

        again [F, R, times]: the same for all planes once more, then for those at outliers.
        """
        planes = draw(self.alone(h), noise)
        ones, others = (
            torch.nonzero(mask & system.leads, as_tuple=True) for mask in (first, ~first)
        )
        once_more, *at_outliers = again.unbind(-1)
        for rows, column in ((others, noise), (ones, once_more), (others, once_more)):
            planes = self._redraw(h, planes, column, tables, system, rows)
        for column in at_outliers:
            found = outliers(planes, tables, system)
            found |= found[:, system.bead_next]
            for rows in (ones, others):
                some = torch.nonzero(found[rows]).squeeze(-1)
                if len(some):
                    few = (rows[0][some], rows[1][some])
                    planes = self._redraw(h, planes, column, tables, system, few)
        return planes

    def _redraw(
        self,
        h: Tensor,
        planes: Tensor,
        noise: Tensor,
        tables: AngleTables,
        system: ResidueSystem,
        rows: tuple[Tensor, ...],
    ) -> Tensor:
        """``planes`` with ``rows`` drawn given their neighbours."""
        logits = self.given_others(h, planes, tables, system, rows)
        return planes.index_put(rows, draw(logits, noise[rows]))

    def mode(self, h: Tensor, first: Tensor, tables: AngleTables, system: ResidueSystem) -> Tensor:
        """A joint mode: each set of planes in turn takes its most likely rotation given the other."""
        planes = angle_of_mode(self.alone(h))
        for fixed in (first, ~first, first):
            best = angle_of_mode(self.given_others(h, planes, tables, system))
            planes = torch.where(fixed, planes, best)
        return planes

    def given_others(
        self,
        h: Tensor,
        planes: Tensor,
        tables: AngleTables,
        system: ResidueSystem,
        rows: Rows | None = None,
    ) -> Tensor:
        """Logits of each plane given its neighbours in ``planes``: [F, R, BINS], or of ``rows`` [n, BINS]."""
        at = _places(system, rows)
        around = harmonics(planes, HARMONICS)
        before = self.previous(around[at.before]) * at.is_behind.unsqueeze(-1)
        after = self.following(around[at.after]) * at.is_ahead.unsqueeze(-1)
        logits = self.between(nn.functional.silu(self.context(h[at.own]) + before + after))
        if tables.bias is not None:
            logits = logits + tables.bias[at.own[1]]
        found: Tensor = logits - self._strain(planes, tables, at, system)
        return found

    def _strain(
        self, planes: Tensor, tables: AngleTables, at: "Places", system: ResidueSystem
    ) -> Tensor:
        """Penalty of what a plane makes together with its neighbours, at every bin: [..., BINS].

        That is two angles N-CA-C, contacts of O and N, and phi of prolines.
        """
        bins = ones_cos_sin(centres(BINS, planes))
        turned = ones_cos_sin(planes)
        behind = torch.einsum("...i,...ij->...j", turned[at.before], tables.at[at.own])
        ahead = torch.einsum("...ij,...j->...i", tables.at[at.after], turned[at.after])
        stiff, rest = self.log_stiffness.exp(), self.cosine
        total: Tensor | float = 0.0
        for cosines, there, residue in (
            (behind @ bins.T, at.is_behind, at.own[1]),
            (ahead @ bins.T, at.is_ahead, at.after[1]),
        ):
            kind = system.residue_type[residue]
            excess = cosines - rest[kind].unsqueeze(-1)
            weight = (0.5 * stiff[kind] * there).unsqueeze(-1)
            total = total + weight * excess.square()
        total = total + self._contact(turned, bins, tables, at)
        return add_ring_strain(total, turned, bins, tables, at, system)

    @staticmethod
    def _contact(turned: Tensor, bins: Tensor, tables: AngleTables, at: "Places") -> Tensor:
        """Penalty of O and N of a plane at every bin that touch O and N of its neighbours: [..., BINS].

        turned [F, R, 3] and bins [BINS, 3]: 1, cosine and sine of the planes and of every bin.
        """
        oxygen, nitrogen = (
            torch.einsum("bk,...kx->x...b", bins, x[at.own]).contiguous() for x in tables.links
        )
        o_before, o_after, n_after = (
            torch.einsum("...k,...kx->x...", turned[there], x[there])
            for x, there in (
                (tables.oxygen, at.before),
                (tables.oxygen, at.after),
                (tables.nitrogen, at.after),
            )
        )
        depth = turned.new_zeros(())
        for atoms, other, there in (
            (oxygen, o_after, at.is_ahead),
            (oxygen, n_after, at.is_ahead),
            (oxygen, o_before, at.is_behind),
            (nitrogen, o_before, at.is_behind),
        ):
            x, y, z = (atoms - other.unsqueeze(-1)).square()  # by component, which is fast
            gap = (x + y + z).clamp_min(1e-8).sqrt()  # a plane without a neighbour meets itself
            depth = depth + (TOUCH - gap).clamp_min(0) * there.unsqueeze(-1)
        return depth / TOUCH_SOFTNESS


class Places(NamedTuple):
    """Where planes and their neighbours along the chain stand in tensors [F, R, ...]: all, or some rows.

    is_behind, is_ahead: whether there is such a neighbour, bool [R] or [n].
    """

    own: Rows
    before: Rows
    after: Rows
    is_behind: Tensor
    is_ahead: Tensor


def _places(system: ResidueSystem, rows: Rows | None) -> Places:
    frame, residue = rows or (slice(None), slice(None))
    before, after = system.bead_previous[residue], system.bead_next[residue]
    behind = (system.bonded & system.leads)[residue]
    ahead = (system.leads & system.leads[system.bead_next])[residue]
    return Places((frame, residue), (frame, before), (frame, after), behind, ahead)
