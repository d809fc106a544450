"""What peptide planes that turn about their C-alpha pairs place: C, O and N, the angle N-CA-C, phi and psi.

Shapes: F frames, R residues.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcbackmap.protein.ramachandran import BINS, KINDS, kind_of, regions
from hpcbackmap.protein.residues import BACKBONE, RESIDUES
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.system import ResidueSystem

__all__ = ["AngleTables", "angle_tables", "dihedral", "ones_cos_sin", "outliers"]

CARBON, OXYGEN = BACKBONE.index("C"), BACKBONE.index("O")


class AngleTables(NamedTuple):
    """cos(N-CA-C) of residue i is u^T at[i] v for u, v = (1, cos, sin) of the planes before and after it.

    at: [F, R, 3, 3]. calpha [F, R, 3], nm. carbon, oxygen, nitrogen: [F, R, 3, 3], C and O of residue i and N
    of the next lie at v^T carbon[i], v^T oxygen[i] and v^T nitrogen[i], nm. bias: bias of each plane's logits
    given its neighbours [R, BINS], of one protein.
    """

    at: Tensor
    calpha: Tensor
    carbon: Tensor
    oxygen: Tensor
    nitrogen: Tensor
    bias: Tensor | None = None

    @property
    def links(self) -> tuple[Tensor, Tensor]:
        """Of O and N, which other planes touch."""
        return self.oxygen, self.nitrogen


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
    carbon = torch.cat([coarse.unsqueeze(-2) + along * a, out * p, out * n], -2)
    swing = at_c - o[..., 1, :, :]
    along, out = along - o[..., 0, :, :] * swing.cos(), out - o[..., 0, :, :] * swing.sin()
    oxygen = torch.cat([coarse.unsqueeze(-2) + along * a, out * p, out * n], -2)
    at = torch.einsum("frik,frjk->frij", to_n[:, system.bead_previous], to_c)
    return AngleTables(at, coarse, carbon, oxygen, nitrogen)


def ones_cos_sin(angle: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], -1)


def outliers(planes: Tensor, tables: AngleTables, system: ResidueSystem) -> Tensor:
    """Residues whose phi and psi are outside the allowed regions with rotations ``planes``, [F, R] both."""
    turned = ones_cos_sin(planes)
    c, n_ahead = (
        torch.einsum("frk,frkx->xfr", turned, x) for x in (tables.carbon, tables.nitrogen)
    )
    calpha = tables.calpha.permute(2, 0, 1)
    c_behind, n = (x[..., system.bead_previous] for x in (c, n_ahead))
    bonds = [n - c_behind, calpha - n, c - calpha, n_ahead - c]
    phi, psi = (dihedral(*bonds[first : first + 3]) for first in (0, 1))
    row, column = ((BINS * (x / (2 * math.pi) + 0.5)).long() % BINS for x in (phi, psi))
    kinds = _kinds_of_types(planes.device)[system.residue_type]
    general, before_proline = KINDS.index("general"), KINDS.index("before proline")
    leads_proline = (kinds == general) & system.leads & system.proline[system.bead_next]
    kinds = kinds.masked_fill(leads_proline, before_proline)
    found: Tensor = ~_allowed(planes.device)[kinds, row, column] & system.bonded & system.leads
    return found


def dihedral(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Of bonds [3, ...] one after another, rad; [...]."""
    across, beyond = (
        torch.linalg.cross(*pair, dim=0) for pair in ((first, second), (second, third))
    )
    length = second.square().sum(0).sqrt()
    return torch.atan2(length * (first * beyond).sum(0), (across * beyond).sum(0))


@cache
def _kinds_of_types(device: torch.device) -> Tensor:
    """Kind of each residue type but before proline."""
    return torch.tensor([kind_of(name, "") for name in RESIDUES], device=device)


@cache
def _allowed(device: torch.device) -> Tensor:
    return torch.from_numpy(regions("allowed")).to(device)
