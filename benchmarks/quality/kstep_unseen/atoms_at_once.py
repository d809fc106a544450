"""Beads to heavy atoms in one step: the network of the trace stage, whose residues also place their atoms.

Each residue sees its atoms in the right-handed frame of the trace about it: the mean place of the atom in
residues of its type, and a shift that its features (noise among them) give. Fine positions are dense here,
[F, N, MAX_ATOMS, 3]: atoms of each residue in the order of its template, OXT after them. The density is one
Gaussian about a draw: C-alpha atoms with a variance for each bead on its fibre, as of the trace stage, and
every other atom, seen from its C-alpha atom, with a variance of its own; that change of variables has the
determinant 1, so that it is a density of atoms on the fibre of the beads.
"""

import math

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.residues import CIS_BORDER, MAX_ATOMS, RESIDUE_INDEX, RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.layers.network import MLP
from hpcbackmap.stages.layers.pooling import bead_sums, system_sums
from hpcbackmap.stages.system import Particles, Plain
from hpcbackmap.stages.trace.energy_score import (
    energy_score,
    near_pairs,
    other_noise,
    pair_lengths,
    trace_scores,
)
from hpcbackmap.stages.trace.model import CLOSING, WEIGHTS, Trace
from hpcbackmap.stages.trace.network import LATENT, Context
from hpcbackmap.stages.trace.system import TraceSystem, trace_system

__all__ = ["AtomsAtOnce", "AtomsSystem", "dense"]

CA = 1
"""Place of the C-alpha atom in every residue."""
SHIFT = 0.1
"""nm of a residue's atoms that one unit of its network stands for."""
LOCAL_SCALE, KEPT = 0.1, 0.2
"""Typical error of an atom in its residue's frame (nm); error of a distance that loses 63 %."""
ALL_WEIGHTS = WEIGHTS | {"local": 2.0, "pairs_of_atoms": 2.0, "bonds_of_atoms": 20.0}
"""Of the terms beside those of the trace stage; bonds in nm."""


class AtomsSystem(TraceSystem):
    """residue_type [N]. there [N, MAX_ATOMS]: which atoms there are. bond_residues, bond_slots [bonds, 2]:
    residue and slot of both atoms of each bond, and of each pair two bonds apart, so that angles are kept.
    """

    residue_type: Plain
    there: Plain
    bond_residues: Particles
    bond_slots: Plain


class AtomsAtOnce(Trace):
    def __init__(self, fine: str, coarse: str, config: TraceConfig):
        super().__init__(fine, coarse, config)
        width = config.width
        self.look = nn.LayerNorm(width)
        self.move = MLP(width, 2 * width, 3 * MAX_ATOMS)
        self.log_scatter = MLP(width, width, MAX_ATOMS)
        self.register_buffer("usual", torch.zeros(len(RESIDUES), MAX_ATOMS, 3))
        for layer in (self.move.last, self.log_scatter.last):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def describe(self, ladder: Ladder) -> AtomsSystem:
        """ladder: (fg, beads); the trace between them has no rung."""
        topology = ladder.topology
        bead = ladder.mapping(self.coarse).bead[topology.ca_index]
        own = Mapping(np.arange(topology.n_residues)[topology.atom_residue], _one_hot(topology))
        trace = Ladder(
            topology, ("fg", "ca", self.coarse), (own, Mapping(bead, np.ones(len(bead))))
        )
        system = AtomsSystem()
        for key, value in vars(trace_system(trace, "ca", self.coarse)).items():
            setattr(system, key, value)
        slot = slots(topology)
        there = np.zeros((topology.n_residues, MAX_ATOMS), dtype=bool)
        there[topology.atom_residue, slot] = True
        near = _within_two_bonds(topology)
        fields = {
            "residue_type": np.array([RESIDUE_INDEX[name] for name in topology.sequence]),
            "there": there,
            "bond_residues": topology.atom_residue[near],
            "bond_slots": slot[near],
        }
        for key, value in fields.items():
            setattr(system, key, torch.from_numpy(value))
        return system

    @torch.no_grad()
    def calibrate(self, fine: Tensor, coarse: Tensor, system: AtomsSystem) -> None:
        """The mean place of each atom of each residue type from dense atoms [1, N, MAX_ATOMS, 3]."""
        local = self.seen(fine, system)[0] * system.there.unsqueeze(-1)
        kinds = len(RESIDUES)
        total = local.new_zeros(kinds, MAX_ATOMS, 3).index_add(0, system.residue_type, local)
        count = local.new_zeros(kinds, MAX_ATOMS)
        count = count.index_add(0, system.residue_type, system.there.to(local))
        self.usual.copy_(total / count.clamp_min(1).unsqueeze(-1))

    def seen(self, atoms: Tensor, system: AtomsSystem) -> Tensor:
        """Atoms from their own C-alpha atom, in the frames of their own trace, [F, N, MAX_ATOMS, 3]."""
        gap = atoms - atoms[:, :, CA : CA + 1]
        return torch.einsum("fnij,fnaj->fnai", self.frames(atoms[:, :, CA], system), gap)

    def frames(self, trace: Tensor, system: AtomsSystem) -> Tensor:
        return geometry.local_frames(trace.detach(), system.before_index, system.after_index)

    def placed(self, trace: Tensor, local: Tensor, system: AtomsSystem) -> Tensor:
        """Atoms [F, N, MAX_ATOMS, 3] from what `seen` tells of them."""
        gap = torch.einsum("fnij,fnai->fnaj", self.frames(trace, system), local)
        return trace.unsqueeze(2) + gap

    def local(self, h: Tensor, system: AtomsSystem) -> Tensor:
        """Where each residue sees its atoms, [F, N, MAX_ATOMS, 3]; C-alpha and what is not there at 0."""
        shift = SHIFT * self.move(self.look(h)).unflatten(-1, (MAX_ATOMS, 3))
        kept = system.there.clone()
        kept[:, CA] = False
        found: Tensor = (self.usual[system.residue_type] + shift) * kept.unsqueeze(-1)
        return found

    def samples(self, coarse: Tensor, system: AtomsSystem, noises: list[Tensor]) -> list[Tensor]:
        """Flat atoms [F, A, 3] each, as the topology orders them."""
        context = self.network.context(coarse, system)
        links = self._cis_links(context, system, noises).split(len(coarse))
        return [
            self._finished(context, noise[..., :LATENT], coarse, system, cis)
            for noise, cis in zip(noises, links, strict=True)
        ]

    def mode(self, coarse: Tensor, system: AtomsSystem) -> Tensor:
        context = self.network.context(coarse, system)
        links = self._cis_links(context, system)
        return self._finished(context, None, coarse, system, links)

    def _finished(
        self,
        context: Context,
        z: Tensor | None,
        coarse: Tensor,
        system: AtomsSystem,
        cis: Tensor,
    ) -> Tensor:
        """The trace is closed as that of the trace stage; atoms go with it."""
        h, trace = self.network.refine(context, z, coarse, system)
        closed = close_calpha(trace, system, cis, CLOSING)
        return self.placed(closed, self.local(h, system), system)[:, system.there]

    def log_weight(
        self, fine: Tensor, coarse: Tensor, system: AtomsSystem, noise: Tensor
    ) -> Tensor:
        context = self.network.context(coarse, system)
        h, trace = self.network.refine(context, noise[..., :LATENT], coarse, system)
        drawn = self.placed(trace, self.local(h, system), system)
        return system_sums(self._nats(fine, drawn, context, system), system)

    def loss(
        self, fine: Tensor, coarse: Tensor, system: AtomsSystem, noise: Tensor
    ) -> dict[str, Tensor]:
        """The scores of the trace stage, and the same kinds of scores of all atoms."""
        context, z = self.network.context(coarse, system), None
        if not (self.training and self.answers):
            z = noise[..., :LATENT]
            z = torch.cat([z, other_noise(z, system)])
        h, trace = self.network.refine(context, z, coarse, system)
        local, real = self.local(h, system), fine[:, :, CA]
        drawn = self.placed(trace, local, system)
        terms = trace_scores(trace, real, context.trace, system)
        links = system.bond_index.T
        off = pair_lengths(trace, links).unflatten(0, (-1, len(fine))) - pair_lengths(real, links)
        terms["bonds"] = off.abs().mean()
        cis = (pair_lengths(real, links) < CIS_BORDER).to(trace)
        logits = self.network.cis_logits(context)[:, links[1]]
        terms["cis"] = nn.functional.binary_cross_entropy_with_logits(logits, cis)
        terms |= self._scores(fine, local, drawn, context, system)
        nats = self._nats(fine, drawn[: len(fine)].detach(), context, system)
        loss = sum(ALL_WEIGHTS[name] * value for name, value in terms.items())
        return {
            "loss": loss - nats.sum() / (3 * system.there.sum()),
            "log_likelihood": system_sums(nats, system).mean(),
            "kl": coarse.new_zeros(()),
            **terms,
        }

    def _scores(
        self, fine: Tensor, local: Tensor, drawn: Tensor, context: Context, system: AtomsSystem
    ) -> dict[str, Tensor]:
        count = (system.there.sum(-1) - 1).clamp_min(1)

        def place(a: Tensor, b: Tensor) -> Tensor:
            square = (a - b).square().sum(-1) * system.there
            return (square.sum(-1) / count + 1e-8).sqrt() / LOCAL_SCALE

        def apart(a: Tensor, b: Tensor) -> Tensor:
            return 1 - torch.exp(-(a - b).abs() / KEPT)

        residues = near_pairs(context.trace[0], system)
        picked = torch.rand(2, residues.shape[1], MAX_ATOMS) * system.there[residues]
        some = residues * MAX_ATOMS + picked.argmax(-1)
        bonds = (system.bond_residues * MAX_ATOMS + system.bond_slots).T
        flat, real = drawn.flatten(1, 2), fine.flatten(1, 2)
        off = pair_lengths(flat, bonds).unflatten(0, (-1, len(fine))) - pair_lengths(real, bonds)
        pairs = pair_lengths(flat, some), pair_lengths(real, some)
        return {
            "local": energy_score(place, local, self.seen(fine, system)).mean(),
            "pairs_of_atoms": energy_score(apart, *pairs).mean(),
            "bonds_of_atoms": off.abs().mean(),
        }

    def _nats(self, fine: Tensor, drawn: Tensor, context: Context, system: AtomsSystem) -> Tensor:
        """Log density of all atoms of each bead on its fibre, [F, B]."""
        trace = self._log_density(fine[:, :, CA], drawn[:, :, CA], context, system)
        gap = (fine - fine[:, :, CA : CA + 1]) - (drawn - drawn[:, :, CA : CA + 1])
        log_scatter = self.log_scatter(context.h.detach()) + math.log(SHIFT)
        nats = -0.5 * gap.square().sum(-1) * torch.exp(-2 * log_scatter)
        nats = nats - 3 * (log_scatter + 0.5 * math.log(2 * math.pi))
        others = system.there.clone()
        others[:, CA] = False
        return trace + bead_sums((nats * others).sum(-1), system)


def dense(topology: Topology, atoms: np.ndarray) -> np.ndarray:
    """Atoms [N, MAX_ATOMS, 3] of flat ones [A, 3]; where there is none, the C-alpha atom."""
    found = np.repeat(atoms[topology.ca_index, None], MAX_ATOMS, 1)
    found[topology.atom_residue, slots(topology)] = atoms
    return found


def slots(topology: Topology) -> np.ndarray:
    """Place of each atom in its residue, [A]."""
    first = np.searchsorted(topology.atom_residue, np.arange(topology.n_residues))
    return np.arange(topology.n_atoms) - first[topology.atom_residue]


def _one_hot(topology: Topology) -> np.ndarray:
    weight = np.zeros(topology.n_atoms)
    weight[topology.ca_index] = 1
    return weight


def _within_two_bonds(topology: Topology) -> np.ndarray:
    """Pairs of atoms [pairs, 2] that are bonded, or bonded to the same atom."""
    a, b = topology.bonds.T
    ones = np.ones(2 * len(a), dtype=np.int64)
    shape = (topology.n_atoms, topology.n_atoms)
    graph = sparse.csr_matrix((ones, (np.r_[a, b], np.r_[b, a])), shape=shape)
    pairs = sparse.triu(graph + graph @ graph, 1).tocoo()
    return np.stack([pairs.row, pairs.col], 1).astype(np.int64)
