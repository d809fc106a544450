"""C-alpha to heavy atoms in internal coordinates, after GenZProt (Yang & Gomez-Bombarelli 2023).

Differences from the reference: invariant inputs in local frames (handed, not mirror symmetric), bonded
parents and peptide planes hung on the C-alpha pair (ends, OXT and breaks included), binned autoregressive
torsions instead of one angle per context, exact likelihood with its Jacobian. The conditioning
C-alpha atoms are kept exactly.
"""

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from hpcbackmap.config import GenzprotConfig
from hpcbackmap.protein.internal import (
    internal_from_positions,
    positions_from_internal,
    proline_closure,
)
from hpcbackmap.protein.peptide import link_angles
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages import geometry
from hpcbackmap.stages.base import Elbo, Normal, Stage, System, kl_divergence
from hpcbackmap.stages.contacts import residues_in_contact
from hpcbackmap.stages.network import MLP, MessageLayers
from hpcbackmap.stages.residue_system import FLAGS, residue_system
from hpcbackmap.stages.torsion_head import TorsionHead
from hpcbackmap.stages.torsions import angle_of_mode, draw, log_density

__all__ = ["Genzprot"]

REACH = 2.0
"""Reach of the radial basis, nm."""
SPREAD = (0.002, 0.04, 0.08)
"""Starting standard deviations of distance (nm), angle and fixed dihedral (rad)."""
CONTACT_NEIGHBOURS = 24


class Genzprot(Stage):
    kind = "genzprot"

    def __init__(self, fine: str, coarse: str, config: GenzprotConfig):
        super().__init__(fine, coarse)
        self.config = config
        width = config.width
        self.latent = config.latent
        self.noise_width = config.latent + N_TORSIONS * (1 + config.redraws)
        self.residue = nn.Embedding(len(RESIDUES), width)
        self.shape = nn.Linear(geometry.CHAIN_FEATURES + FLAGS, width)
        self.trunk = MessageLayers(width, config.layers)
        self.prior_head = MLP(width, width, 2 * config.latent)
        self.posterior_head = MLP(width + 3 * N_TORSIONS, width, 2 * config.latent)
        self.from_latent = nn.Linear(config.latent, width)
        self.decoder = MessageLayers(width, 1)
        self.torsions = TorsionHead(width)
        self.offsets = nn.Linear(width, MAX_ATOMS * 3)
        self.log_spread = nn.Parameter(
            torch.log(torch.tensor(SPREAD)).repeat(len(RESIDUES) * MAX_ATOMS, 1)
        )
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)

    def describe(self, ladder: Ladder) -> System:
        return residue_system(ladder, self.coarse)

    def prior(self, coarse: Tensor, system: Batch) -> Normal:
        return self._prior(self._context(coarse, system))

    def posterior(self, fine: Tensor, coarse: Tensor, system: Batch) -> Normal:
        internal = _internal(fine, system)
        return self._posterior(self._context(coarse, system), internal, system)

    def decode(self, z: Tensor, coarse: Tensor, system: Batch) -> Tensor:
        context = self._context(coarse, system)
        h = self._decoded(context, z)
        torsions = self.torsions(h, system, lambda role, logits: angle_of_mode(logits))
        return self._place(h, torsions, coarse, system)

    def mode(self, coarse: Tensor, system: Batch) -> Tensor:
        return self.decode(self.prior(coarse, system).mean, coarse, system)

    def sample(self, coarse: Tensor, system: Batch, noise: Tensor) -> Tensor:
        """Prior member. Side chains in contact with another residue draw their torsions again."""
        context = self._context(coarse, system)
        h = self._decoded(context, self._prior(context).at(noise[..., : self.latent]))
        rounds = noise[..., self.latent :].unflatten(-1, (-1, N_TORSIONS))
        torsions = self.torsions(h, system, lambda role, logits: draw(logits, rounds[..., 0, role]))
        positions = self._place(h, torsions, coarse, system)
        near = geometry.nearest(coarse, system.coarse_system, CONTACT_NEIGHBOURS)
        for k in range(1, rounds.shape[-2]):
            hit = residues_in_contact(positions, system, *near)
            if not hit.any():
                break
            redrawn = self.torsions.others(
                h, torsions[..., Role.PLANE], system,
                lambda role, logits, k=k: draw(logits, rounds[..., k, role]),
            )  # fmt: skip
            torsions = torch.where(hit.unsqueeze(-1), redrawn, torsions)
            positions = self._place(h, torsions, coarse, system)
        return positions

    def elbo(self, fine: Tensor, coarse: Tensor, system: Batch, noise: Tensor) -> Elbo:
        """Exact density on the fibre: internal coordinates, times the Jacobian d^2 sin(theta) per atom."""
        context = self._context(coarse, system)
        internal = _internal(fine, system)
        q, p = self._posterior(context, internal, system), self._prior(context)
        h = self._decoded(context, q.at(noise[..., : self.latent]))
        atoms = self._rigid_log_density(h, internal, fine, coarse, system)
        residues = self._torsion_log_density(h, internal, system)
        likelihood = _by_system(atoms, system.fine_system, system.n_systems)
        likelihood = likelihood + _by_system(residues, system.coarse_system, system.n_systems)
        return Elbo(
            likelihood, _by_system(kl_divergence(q, p), system.coarse_system, system.n_systems)
        )

    def loss(self, fine: Tensor, coarse: Tensor, system: Batch, noise: Tensor) -> dict[str, Tensor]:
        elbo = self.elbo(fine, coarse, system, noise)
        residues = torch.bincount(system.coarse_system)
        loss = ((self.config.beta * elbo.kl - elbo.log_likelihood) / residues).mean()
        return {"loss": loss, "log_likelihood": elbo.log_likelihood.mean(), "kl": elbo.kl.mean()}

    def _context(self, coarse: Tensor, system: Batch) -> dict:
        """Features of the residues that depend on the C-alpha trace alone, and their neighbourhoods."""
        frames = geometry.local_frames(coarse, system.bead_before, system.bead_after)
        index, valid = geometry.nearest(coarse, system.coarse_system, self.config.neighbours)
        separation = system.place[index] - system.place.view(1, -1, 1)
        separation = torch.where(system.chain[index] == system.chain.view(1, -1, 1), separation, 0)
        shape = geometry.chain_shape(coarse, system.bead_before, system.bead_after, REACH)
        flags = system.flags.expand(len(coarse), -1, -1)
        h = self.residue(system.residue_type) + self.shape(torch.cat([shape, flags], -1))
        graph = (geometry.edge_features(coarse, frames, index, REACH), index, valid, separation)
        return {"h": self.trunk(h, *graph), "graph": graph}

    def _prior(self, context: dict) -> Normal:
        mean, log_std = self.prior_head(context["h"]).chunk(2, -1)
        return Normal(mean, log_std.clamp(-5, 2))

    def _posterior(self, context: dict, internal: Tensor, system: Batch) -> Normal:
        angles = internal[:, system.torsion_index, 2]
        mask = system.torsion_mask.float().expand_as(angles)
        features = torch.cat([context["h"], angles.cos() * mask, angles.sin() * mask, mask], -1)
        mean, log_std = self.posterior_head(features).chunk(2, -1)
        return Normal(mean, log_std.clamp(-5, 2))

    def _decoded(self, context: dict, z: Tensor) -> Tensor:
        return self.decoder(context["h"] + self.from_latent(z), *context["graph"])

    def _rigid(self, h: Tensor, coarse: Tensor, system: Batch) -> Tensor:
        """Expected distance, angle and fixed dihedral of every atom: [F, A, 3]."""
        offsets = self.offsets(h).unflatten(-1, (MAX_ATOMS, 3))[:, system.bead_of, system.slot]
        expected = system.ideal + system.limit * torch.tanh(offsets / system.limit)
        link = (coarse[:, system.bead_next] - coarse).norm(dim=-1)
        at_c, at_n, cis = link_angles(link)
        base = torch.stack([at_c[:, system.bead_of], at_n[:, system.bead_previous[system.bead_of]]])
        hung = [system.role == role for role in (Role.PLANE, Role.LINK_N)]
        theta = expected[..., 1]
        for mask, value in zip(hung, base, strict=True):
            theta = torch.where(mask, theta - system.ideal[:, 1] + value, theta)
        flip = torch.where(cis[:, system.bead_previous[system.bead_of]], 0.0, math.pi)
        phi = torch.where(hung[1], expected[..., 2] - system.ideal[:, 2] + flip, expected[..., 2])
        return torch.stack([expected[..., 0], theta, phi], -1)

    def _place(self, h: Tensor, torsions: Tensor, coarse: Tensor, system: Batch) -> Tensor:
        rigid = self._rigid(h, coarse, system)
        turn = torsions[:, system.bead_of, system.role.clamp_max(N_TORSIONS - 1)]
        phi = torch.where(system.role < N_TORSIONS, turn, rigid[..., 2])
        internal = torch.stack([rigid[..., 0], rigid[..., 1], phi], -1)
        anchors = (system.z_parent_index, system.z_grand_index, system.z_great_index, system.level)
        positions = positions_from_internal(coarse, internal, *anchors)
        ring = torch.nonzero(system.role == Role.RING).squeeze(-1)
        if len(ring) == 0:
            return positions
        closed = internal.clone()
        closed[:, ring, 2] = _closure(positions, internal, ring, system)
        return positions_from_internal(coarse, closed, *anchors)

    def _rigid_log_density(self, h, internal, fine, coarse, system) -> Tensor:
        """Nats of distances, angles and fixed dihedrals, and the Jacobian: [F, A]; C-alpha 0."""
        expected = self._rigid(h, coarse, system)
        ring = torch.nonzero(system.role == Role.RING).squeeze(-1)
        if len(ring):
            closure = _closure(fine, expected, ring, system)
            expected = expected.index_put(
                (torch.arange(len(fine), device=fine.device).unsqueeze(1), ring.unsqueeze(0),
                 torch.full_like(ring, 2).unsqueeze(0)), closure,
            )  # fmt: skip
        row = system.residue_type[system.bead_of] * MAX_ATOMS + system.slot
        log_spread = self.log_spread[row].clamp_min(-8)
        gap = internal - expected
        gap = torch.cat([gap[..., :2], torch.atan2(gap[..., 2:].sin(), gap[..., 2:].cos())], -1)
        nats = -0.5 * (gap / log_spread.exp()).square() - log_spread - 0.5 * math.log(2 * math.pi)
        turning = (system.role < N_TORSIONS).float()
        nats = nats[..., 0] + nats[..., 1] + nats[..., 2] * (1 - turning)
        distance = internal[..., 0].clamp_min(1e-6)
        jacobian = 2 * distance.log() + internal[..., 1].sin().clamp_min(1e-6).log()
        return torch.where(system.role == Role.CALPHA, 0.0, nats - jacobian)

    def _torsion_log_density(self, h: Tensor, internal: Tensor, system: Batch) -> Tensor:
        """Nats of the rotatable torsions, teacher-forced: [F, R]."""
        truth = internal[:, system.torsion_index, 2]
        even = system.place % 2 == 0
        terms, seen_plane = [], False

        def choose(role: Role, logits: Tensor) -> Tensor:
            nonlocal seen_plane
            counted = system.torsion_mask[:, role]
            if role == Role.PLANE:
                counted = counted & (~even if seen_plane else even)
                seen_plane = True
            terms.append(torch.where(counted, log_density(logits, truth[..., role]), 0.0))
            return truth[..., role]

        self.torsions(h, system, choose)
        return torch.stack(terms).sum(0)


def _internal(fine: Tensor, system: Batch) -> Tensor:
    return internal_from_positions(
        fine, system.z_parent_index, system.z_grand_index, system.z_great_index
    )


def _closure(positions: Tensor, internal: Tensor, ring: Tensor, system: Batch) -> Tensor:
    """Dihedrals that close the proline rings, [F, rings]; ``ring`` are the CD atoms."""
    slots = system.atom_index[system.bead_of[ring]]
    order = RESIDUES["PRO"].atoms
    n, ca, cb, cg = (positions[:, slots[:, order.index(name)]] for name in ("N", "CA", "CB", "CG"))
    bond = torch.full_like(internal[:, ring, 0], CG_CD)
    return proline_closure(n, ca, cb, cg, internal[:, ring, 0], internal[:, ring, 1], bond)


CG_CD = 0.1503
"""Proline CG-CD bond, nm (Engh & Huber 1991)."""


def _by_system(values: Tensor, system: Tensor, count: int) -> Tensor:
    """Sums of values [F, n] over the particles of each system: [F, count]."""
    total = torch.zeros(len(values), count, dtype=values.dtype, device=values.device)
    return total.index_add(1, system, values)
