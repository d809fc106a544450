"""Distances, angles and fixed dihedrals of the heavy atoms: ideal values, small learned deviations, density."""

import math

import torch
from torch import Tensor

from hpcbackmap.protein.internal import internal_from_positions, proline_closure
from hpcbackmap.protein.peptide import link_angles
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CG_CD
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.on_host import places

__all__ = ["expected_geometry", "internal_of", "log_density"]

SMALLEST_LOG_SPREAD = -8.0
FREEDOM = 4.0
"""Degrees of freedom of the t distribution: experimental structures have outliers that no Gaussian bears."""


def internal_of(fine: Tensor, system: ResidueSystem) -> Tensor:
    """Distance, angle and dihedral of every atom to its anchors: [F, A, 3]."""
    return internal_from_positions(
        fine, system.z_parent_index, system.z_grand_index, system.z_great_index
    )


def expected_geometry(offsets: Tensor, coarse: Tensor, system: ResidueSystem) -> Tensor:
    """Expected distance, angle and fixed dihedral of every atom: [F, A, 3].

    offsets: raw deviations of every slot [F, R, MAX_ATOMS, 3], bounded here. The peptide link follows the
    C-alpha distance, which also says whether it is cis.
    """
    offsets = offsets[:, system.bead_of, system.slot]
    expected = system.ideal + system.limit * torch.tanh(offsets / system.limit)
    at_c, at_n, cis = link_angles((coarse[:, system.bead_next] - coarse).norm(dim=-1))
    before = system.bead_previous[system.bead_of]
    theta = expected[..., 1]
    for role, value in ((Role.PLANE, at_c[:, system.bead_of]), (Role.LINK_N, at_n[:, before])):
        theta = torch.where(system.role == role, theta - system.ideal[:, 1] + value, theta)
    flip = torch.where(cis[:, before], 0.0, math.pi)
    turned = expected[..., 2] - system.ideal[:, 2] + flip
    phi = torch.where(system.role == Role.LINK_N, turned, expected[..., 2])
    return torch.stack([expected[..., 0], theta, phi], -1)


def log_density(
    expected: Tensor, log_spread: Tensor, internal: Tensor, fine: Tensor, system: ResidueSystem
) -> Tensor:
    """Nats of distances, angles and fixed dihedrals, times the Jacobian d^2 sin(theta): [F, A]; C-alpha 0.

    Student's t about ``expected`` [F, A, 3], with the log scales ``log_spread`` of each slot of each residue
    type [types * MAX_ATOMS, 3].
    """
    (ring,) = places(system.role == Role.RING, *system.rings)
    if len(ring):
        closed = expected.clone()
        closed[:, ring, 2] = _closure(fine, expected, ring, system)
        expected = closed
    row = system.residue_type[system.bead_of] * MAX_ATOMS + system.slot
    log_spread = log_spread[row].clamp_min(SMALLEST_LOG_SPREAD)
    gap = internal - expected
    gap = torch.cat([gap[..., :2], torch.atan2(gap[..., 2:].sin(), gap[..., 2:].cos())], -1)
    nats = _student(gap * torch.exp(-log_spread)) - log_spread
    turning = (system.role < N_TORSIONS).to(nats)
    nats = nats[..., 0] + nats[..., 1] + nats[..., 2] * (1 - turning)
    distance = internal[..., 0].clamp_min(1e-6)
    jacobian = 2 * distance.log() + internal[..., 1].sin().clamp_min(1e-6).log()
    return torch.where(system.role == Role.CALPHA, 0.0, nats - jacobian)


def _student(x: Tensor) -> Tensor:
    """Log density of the t distribution of `FREEDOM` degrees of freedom."""
    half = (FREEDOM + 1) / 2
    norm = math.lgamma(half) - math.lgamma(FREEDOM / 2) - 0.5 * math.log(FREEDOM * math.pi)
    return norm - half * torch.log1p(x.square() / FREEDOM)


def _closure(positions: Tensor, internal: Tensor, ring: Tensor, system: ResidueSystem) -> Tensor:
    """Dihedrals that close the proline rings, [F, rings]; ``ring`` are the CD atoms."""
    slots = system.atom_index[system.bead_of[ring]]
    order = RESIDUES["PRO"].atoms
    n, ca, cb, cg = (positions[:, slots[:, order.index(name)]] for name in ("N", "CA", "CB", "CG"))
    bond = torch.full_like(internal[:, ring, 0], CG_CD)
    return proline_closure(n, ca, cb, cg, internal[:, ring, 0], internal[:, ring, 1], bond)
