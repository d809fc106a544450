"""Distribution of the peptide planes of a chain: how far each turns about its C-alpha pair.

Two neighbouring planes meet in the angle N-CA-C, which is narrow (111 +- 3 degrees) and known exactly from
their rotations, as is where their O and N lie; so every second plane is drawn on its own and the others given
both neighbours, with a penalty on that angle and on O and N that touch beside what the network learned. Two
planes on either side of a third, drawn without each other, may leave it no good place: so in a member all are
drawn once more, each set given the other (a sweep of Gibbs' sampler, which keeps the joint distribution).

Shapes: F frames, R residues, n rows (planes of frames), W width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcbackmap.protein.residues import BACKBONE, RESIDUES
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, centres, draw, harmonics, log_density

__all__ = ["BINS", "AngleTables", "PlaneHead", "angle_tables", "ones_cos_sin"]

BINS = 72
HARMONICS = 4
TOUCH = 0.24
"""nm; O and N of neighbouring planes that are closer overlap."""
TOUCH_SOFTNESS = 0.01
"""Overlap (nm) that costs one nat."""
CARBON, OXYGEN = BACKBONE.index("C"), BACKBONE.index("O")
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
        self, h: Tensor, planes: Tensor, first: Tensor, tables: "AngleTables", system: ResidueSystem
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
        tables: "AngleTables",
        system: ResidueSystem,
    ) -> Tensor:
        """Rotations [F, R] that standard-normal ``noise`` and, the second time, ``again`` stand for."""
        planes = draw(self.alone(h), noise)
        ones, others = (
            torch.nonzero(mask & system.leads, as_tuple=True) for mask in (first, ~first)
        )
        for rows, column in ((others, noise), (ones, again), (others, again)):
            logits = self.given_others(h, planes, tables, system, rows)
            planes = planes.index_put(rows, draw(logits, column[rows]))
        return planes

    def mode(
        self, h: Tensor, first: Tensor, tables: "AngleTables", system: ResidueSystem
    ) -> Tensor:
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
        tables: "AngleTables",
        system: ResidueSystem,
        rows: Rows | None = None,
    ) -> Tensor:
        """Logits of each plane given its neighbours in ``planes``: [F, R, BINS], or of ``rows`` [n, BINS]."""
        at = _places(system, rows)
        around = harmonics(planes, HARMONICS)
        before = self.previous(around[at.before]) * at.is_behind.unsqueeze(-1)
        after = self.following(around[at.after]) * at.is_ahead.unsqueeze(-1)
        logits = self.between(nn.functional.silu(self.context(h[at.own]) + before + after))
        found: Tensor = logits - self._strain(planes, tables, at, system)
        return found

    def _strain(
        self, planes: Tensor, tables: "AngleTables", at: "Places", system: ResidueSystem
    ) -> Tensor:
        """Penalty of the two N-CA-C angles that a plane takes part in, at every bin: [..., BINS]."""
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
        return total + self._contact(turned, bins, tables, at)

    @staticmethod
    def _contact(turned: Tensor, bins: Tensor, tables: "AngleTables", at: "Places") -> Tensor:
        """Penalty of O and N of a plane at every bin that touch O and N of its neighbours: [..., BINS].

        turned [F, R, 3] and bins [BINS, 3]: 1, cosine and sine of the planes and of every bin.
        """
        oxygen, nitrogen = (
            torch.einsum("bk,...kx->x...b", bins, x[at.own]).contiguous() for x in tables[1:]
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


class AngleTables(NamedTuple):
    """cos(N-CA-C) of residue i is u^T at[i] v for u, v = (1, cos, sin) of the planes before and after it.

    at: [F, R, 3, 3]. oxygen, nitrogen: [F, R, 3, 3], O of residue i and N of the next lie at u^T oxygen[i] and
    u^T nitrogen[i], nm.
    """

    at: Tensor
    oxygen: Tensor
    nitrogen: Tensor


def angle_tables(coarse: Tensor, rigid: Tensor, system: ResidueSystem) -> AngleTables:
    """From C-alpha positions [F, R, 3] and the distance, angle and fixed dihedral of all atoms [F, A, 3].

    Written for link i, with a along CA(i)-CA(i+1) and p, n across it: C(i) lies along cos(t) a + sin(t) e with
    e = cos(u) p + sin(u) n for the rotation u of the plane, N(i+1) along -cos(t') a + sin(t') e', where e' is
    e turned about a by the dihedral N-CA-CA-C.
    """
    following, third = coarse[:, system.bead_next], coarse[:, system.bead_third]
    a = nn.functional.normalize(following - coarse, dim=-1).unsqueeze(-2)
    n = nn.functional.normalize(torch.linalg.cross(third - following, a.squeeze(-2)), dim=-1)
    n = n.unsqueeze(-2)
    p = torch.linalg.cross(a, n)
    nothing = torch.zeros_like(a)
    at_c = rigid[:, system.torsion_index[:, Role.PLANE], 1, None, None]
    to_c = torch.cat([at_c.cos() * a, at_c.sin() * p, at_c.sin() * n], -2)
    link = rigid[:, system.atom_index[system.bead_next, 0]]
    at_n, turn = link[..., 1, None, None], link[..., 2, None, None]
    across = torch.cat(
        [nothing, turn.cos() * p - turn.sin() * n, turn.cos() * n + turn.sin() * p], -2
    )
    to_n = torch.cat([-at_n.cos() * a, nothing, nothing], -2) + at_n.sin() * across
    nitrogen = link[..., 0, None, None] * to_n
    nitrogen = torch.cat([nitrogen[..., :1, :] + following.unsqueeze(-2), nitrogen[..., 1:, :]], -2)
    c, o = (rigid[:, system.atom_index[:, slot]][..., None, None] for slot in (CARBON, OXYGEN))
    along, out = (c[..., 0, :, :] * at_c.cos(), c[..., 0, :, :] * at_c.sin())
    swing = at_c - o[..., 1, :, :]
    along, out = along - o[..., 0, :, :] * swing.cos(), out - o[..., 0, :, :] * swing.sin()
    oxygen = torch.cat([coarse.unsqueeze(-2) + along * a, out * p, out * n], -2)
    at = torch.einsum("frik,frjk->frij", to_n[:, system.bead_previous], to_c)
    return AngleTables(at, oxygen, nitrogen)


def ones_cos_sin(angle: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], -1)
