"""Internal coordinates: distance, angle and dihedral of every atom to its Z-matrix anchors.

All functions take any number of leading dimensions, are differentiable, and work on several systems at
once when their index vectors are concatenated. Distances nm, angles rad; dihedrals follow the IUPAC sign.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "angle",
    "attach",
    "dihedral",
    "internal_from_positions",
    "local_vector",
    "place_atoms",
    "positions_from_internal",
    "proline_closure",
]


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Angle a-b-c in rad, exact near 0 and pi; points [..., 3]."""
    u, v = a - b, c - b
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """IUPAC dihedral a-b-c-d in rad, (-pi, pi]; points [..., 3]."""
    u, v, w = b - a, c - b, d - c
    n1 = torch.linalg.cross(u, v)
    n2 = torch.linalg.cross(v, w)
    x = (n1 * n2).sum(-1) * v.norm(dim=-1)
    y = (torch.linalg.cross(n1, n2) * v).sum(-1)
    return torch.atan2(y, x)


def internal_from_positions(
    positions: Tensor, parent: Tensor, grandparent: Tensor, great: Tensor
) -> Tensor:
    """Distance, angle, dihedral of atoms to their anchors: [..., A, 3] from positions [..., A, 3].

    Rows that refer to themselves (C-alpha) are zero.
    """
    p, g, h = (positions[..., i, :] for i in (parent, grandparent, great))
    distance = (positions - p).norm(dim=-1)
    return torch.stack([distance, angle(positions, p, g), dihedral(positions, p, g, h)], -1)


def place_atoms(parent: Tensor, grandparent: Tensor, great: Tensor, internal: Tensor) -> Tensor:
    """Positions [..., n, 3] of atoms from their anchors' positions [..., n, 3] and internal [..., n, 3]."""
    return attach(parent, grandparent, great, local_vector(internal))


def local_vector(internal: Tensor) -> Tensor:
    """Components along bond, plane and normal of what `attach` adds to the parent: [..., 3]."""
    distance, theta, phi = internal.unbind(-1)
    sine = distance * theta.sin()
    return torch.stack([-distance * theta.cos(), sine * phi.cos(), sine * phi.sin()], -1)


def attach(parent: Tensor, grandparent: Tensor, great: Tensor, vector: Tensor) -> Tensor:
    """`place_atoms` with the internal coordinates as `local_vector` has them."""
    axis = torch.nn.functional.normalize(parent - grandparent, dim=-1)
    normal = torch.linalg.cross(grandparent - great, axis)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    inplane = torch.linalg.cross(normal, axis)
    along, across, out = vector.split(1, -1)
    found: Tensor = parent + along * axis + across * inplane + out * normal
    return found


def positions_from_internal(
    ca: Tensor,
    internal: Tensor,
    parent: Tensor,
    grandparent: Tensor,
    great: Tensor,
    level: Tensor,
    counts: Sequence[int],
) -> Tensor:
    """Positions [..., A, 3] from the C-alpha trace [..., R, 3] and internal coordinates [..., A, 3].

    C-alpha rows are those of level 0, in the order of the trace. counts: rows of each level. One vectorised
    placement per level.
    """
    order = torch.argsort(level, stable=True)
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(order), device=order.device)
    placed = ca
    for atoms in torch.split(order, list(counts))[1:]:
        one, two, three = (placed[..., slot[i[atoms]], :] for i in (parent, grandparent, great))
        more = place_atoms(one, two, three, internal[..., atoms, :])
        placed = torch.cat([placed, more], dim=-2)
    return placed[..., slot, :]


def proline_closure(
    n: Tensor, ca: Tensor, cb: Tensor, cg: Tensor, distance: Tensor, theta: Tensor, bond: Tensor
) -> Tensor:
    """Dihedral CD-N-CA-CB that closes the proline ring on CG, rad.

    CD lies on a circle about the N-CA axis (``distance`` to N, angle ``theta`` at N) and at ``bond`` from
    CG; of the two intersections the flatter ring (smaller dihedral) is the proline's. Where circle and
    sphere miss each other, the nearest point of the circle is taken.
    """
    axis = torch.nn.functional.normalize(n - ca, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(ca - cb, axis), dim=-1)
    inplane = torch.linalg.cross(normal, axis)
    centre = n - (distance * theta.cos()).unsqueeze(-1) * axis
    radius = distance * theta.sin()
    to_cg = cg - centre
    x, y = (to_cg * inplane).sum(-1), (to_cg * normal).sum(-1)
    reach = torch.hypot(x, y)
    cosine = (to_cg.square().sum(-1) + radius.square() - bond.square()) / (2 * radius * reach)
    swing = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    middle = torch.atan2(y, x)
    first, second = (torch.atan2((middle + s).sin(), (middle + s).cos()) for s in (swing, -swing))
    return torch.where(first.abs() < second.abs(), first, second)
