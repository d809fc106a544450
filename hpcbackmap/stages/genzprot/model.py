"""C-alpha to heavy atoms in internal coordinates, after GenZProt (Yang & Gomez-Bombarelli 2023).

The latents are discrete: for every rotatable torsion the bin that it is in. The posterior is that bin, the
prior is autoregressive (peptide planes, chain ends, then side chains each given the atoms around it), the
decoder is uniform inside a bin and a t distribution around ideal bonds and angles. So the prior has as many
modes as the data ask for and the latents cannot collapse.

Other differences from the reference: invariant inputs in local frames (handed, not mirror symmetric), bonded
parents and peptide planes hung on the C-alpha pair (ends, OXT and breaks included). The conditioning
C-alpha atoms are kept exactly.
"""

import math

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.base import Elbo
from hpcbackmap.stages.genzprot import ideal_geometry
from hpcbackmap.stages.genzprot.choose_rotamer import Pick
from hpcbackmap.stages.genzprot.dense_atoms import Scene
from hpcbackmap.stages.genzprot.drawing import Drawing
from hpcbackmap.stages.genzprot.network import Context
from hpcbackmap.stages.genzprot.noise_columns import (
    DRAWS,
    LEVEL,
    RANK,
    SHIFT,
    order,
    redraw_columns,
)
from hpcbackmap.stages.genzprot.place_side_chains import SideChains, turning, turning_rows
from hpcbackmap.stages.genzprot.steric import STERIC_DRAWS, steric_term
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsion_bias import Observed, frames_to_observe
from hpcbackmap.stages.genzprot.torsions import bin_of, log_density
from hpcbackmap.stages.layers.on_host import places

__all__ = ["Genzprot"]

RIGID_SHARE = 0.005
"""Weight of bonds and angles beside the torsions in the loss. Parameters of their own learn them, so that it
only keeps their gradients, which are a hundred times as large, from ruling what is clipped."""
OBSERVED = 16
"""Frames whose torsions are observed at a time, which bounds the memory."""
GOLDEN = (1 + math.sqrt(5)) / 2


class Genzprot(Drawing):
    """The stage: its structures are drawn as `drawing` says, here are their densities and what trains it."""

    kind = "genzprot"
    variance = "one per atom type and internal coordinate, learned"
    by_heart = frozenset({"known.weight", "bias.planes", "bias.chi"})

    @torch.no_grad()
    def calibrate(self, fine: Tensor, coarse: Tensor, system: ResidueSystem) -> None:
        """Fit the `torsion_bias` of one protein; of many there is nothing to set."""
        if self.bias is None:
            return
        most = frames_to_observe(coarse.shape[1])
        turns, chi = Observed(), [Observed() for _ in range(N_CHI)]
        for parts in zip(fine[:most].split(OBSERVED), coarse[:most].split(OBSERVED), strict=True):
            self._observe(*parts, system, turns, chi)
        self.bias.fit(turns, chi)

    def _observe(
        self,
        fine: Tensor,
        coarse: Tensor,
        system: ResidueSystem,
        turns: Observed,
        chi: list[Observed],
    ) -> None:
        """Add the true torsions of some frames, and what is expected of each given those before it."""
        context = self._context(coarse, system)
        truth = ideal_geometry.internal_of(fine, system)[:, system.torsion_index, 2]
        tables = self._tables(coarse, self._rigid(context, coarse, system), system)
        planes = truth[..., Role.PLANE]
        expected = self.planes.given_others(context.h, planes, tables, system)
        (there,) = places(system.torsion_mask[:, Role.PLANE], system.torsions[Role.PLANE])
        turns.add(
            expected[:, there].flatten(0, 1), planes[:, there].flatten(), there.repeat(len(fine))
        )
        frames = torch.arange(len(fine), device=fine.device).unsqueeze(-1)
        rank = (system.place / GOLDEN + frames / math.e) % 1
        scene = self._scene(fine[:, system.atom_index], context, system)

        def side(k: int, logits: Tensor, f: Tensor, r: Tensor) -> Tensor:
            angle = truth[f, r, Role.CHI1 + k]
            chi[k].add(logits, angle, r)
            return angle

        self._given_truth(context.h, scene, rank, system, side)

    def encode(self, fine: Tensor, system: ResidueSystem) -> Tensor:
        """The latents of a structure: bin of each torsion, int64 [F, R, N_TORSIONS]; 0 where there is none."""
        torsions = ideal_geometry.internal_of(fine, system)[:, system.torsion_index, 2]
        return torch.where(system.torsion_mask, bin_of(torsions, self.bins), 0)

    def elbo(self, fine: Tensor, coarse: Tensor, system: ResidueSystem, noise: Tensor) -> Elbo:
        """Exact density on the fibre for the order of torsions that ``noise`` stands for."""
        return self._elbo(self._context(coarse, system), fine, coarse, system, noise, fine)

    def log_weight(
        self, fine: Tensor, coarse: Tensor, system: ResidueSystem, noise: Tensor
    ) -> Tensor:
        return self.elbo(fine, coarse, system, noise).total

    def information(self, fine: Tensor, coarse: Tensor, system: ResidueSystem) -> Tensor:
        """-log p(bin) of each torsion, [F, R, N_TORSIONS]: the KL of a deterministic posterior."""
        context = self._context(coarse, system)
        noise = torch.zeros(*coarse.shape[:2], DRAWS, dtype=coarse.dtype, device=coarse.device)
        ranks = torch.linspace(-2, 2, coarse.shape[1], device=coarse.device)
        noise[..., RANK] = ranks[system.place % coarse.shape[1]]
        expected = self._rigid(context, coarse, system)
        internal = ideal_geometry.internal_of(fine, system)
        nats = self._torsion_nats(context, fine, internal, coarse, expected, system, noise)
        return torch.where(system.torsion_mask, -(nats + self._log_bin_width(nats)), 0.0)

    def loss(
        self, fine: Tensor, coarse: Tensor, system: ResidueSystem, noise: Tensor
    ) -> dict[str, Tensor]:
        """KL and a share of the likelihood, per residue; with ``coarse_noise`` residues are seen displaced."""
        shift = torch.zeros_like(coarse)
        if self.config.coarse_noise and self.training:
            begin = system.first_bead[system.coarse_system]
            level = torch.special.ndtr(noise[:, begin, LEVEL]) * self.config.coarse_noise
            shift = level.unsqueeze(-1) * noise[..., SHIFT]
        context = self._context(coarse + shift, system)
        shown = fine + shift[:, system.bead_of]
        elbo = self._elbo(context, fine, coarse, system, noise, shown)
        residues = system.n_beads
        loss = ((elbo.kl - RIGID_SHARE * elbo.log_likelihood) / residues).mean()
        terms = {"log_likelihood": elbo.log_likelihood.mean(), "kl": elbo.kl.mean()}
        if self.config.steric_weight:
            gradient, terms["clashes"] = self._steric(context, coarse, system, noise)
            loss = loss + self.config.steric_weight * gradient
        return {"loss": loss, **terms}

    def _elbo(
        self,
        context: Context,
        fine: Tensor,
        coarse: Tensor,
        system: ResidueSystem,
        noise: Tensor,
        shown: Tensor,
    ) -> Elbo:
        """``shown`` [F, A, 3]: where side chains see the atoms around them."""
        internal = ideal_geometry.internal_of(fine, system)
        expected = self._rigid(context, coarse, system)
        atoms = ideal_geometry.log_density(expected, self.log_spread, internal, fine, system)
        nats = self._torsion_nats(context, shown, internal, coarse, expected, system, noise)
        inside = torch.where(system.torsion_mask, -self._log_bin_width(nats), 0.0)
        uniform = inside.sum(-1).expand(nats.shape[:2])
        likelihood = _by_system(atoms, system.fine_system, system.n_systems)
        likelihood = likelihood + _by_system(uniform, system.coarse_system, system.n_systems)
        kl = _by_system((inside - nats).sum(-1), system.coarse_system, system.n_systems)
        return Elbo(likelihood, kl)

    def _steric(
        self, context: Context, coarse: Tensor, system: ResidueSystem, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`steric_term` among generated neighbours."""
        with torch.no_grad():
            scene = self._generate(context, coarse, system, noise)
        chains = SideChains(self.packing, context.h, scene, system)
        return steric_term(chains, redraw_columns(noise, STERIC_DRAWS))

    def _log_bin_width(self, like: Tensor) -> Tensor:
        return torch.log(2 * math.pi / self.bins.to(like))

    def _torsion_nats(
        self,
        context: Context,
        fine: Tensor,
        internal: Tensor,
        coarse: Tensor,
        expected: Tensor,
        system: ResidueSystem,
        noise: Tensor,
    ) -> Tensor:
        """Log density (nats, per rad) of each torsion, teacher-forced: [F, R, N_TORSIONS]."""
        truth = internal[:, system.torsion_index, 2]
        first, rank = order(noise, system)
        nats = torch.zeros_like(truth)
        h, turns = context.h, truth[..., Role.PLANE]
        tables = self._tables(coarse, expected, system)
        nats[..., Role.PLANE] = self.planes.log_density(h, turns, first, tables, system)

        def at_ends(role: Role, residues: Tensor, logits: Tensor) -> Tensor:
            nats[:, residues, role] = log_density(logits, truth[:, residues, role])
            return truth[:, residues, role]

        self.ends.torsions(h, turns, system, at_ends)
        scene = self._scene(fine[:, system.atom_index], context, system)

        def side(k: int, logits: Tensor, f: Tensor, r: Tensor) -> Tensor:
            angle = truth[f, r, Role.CHI1 + k]
            nats[f, r, Role.CHI1 + k] = log_density(logits, angle)
            return angle

        self._given_truth(h, scene, rank, system, side)
        return nats

    def _given_truth(
        self, h: Tensor, scene: Scene, rank: Tensor, system: ResidueSystem, pick: Pick
    ) -> None:
        """Show ``pick`` the logits of each chi, side chains of lower ``rank`` [F, R] where they truly are."""
        (frame, residue), counts = turning_rows(system, len(h))
        near = scene.near[frame, residue]
        seen = rank[frame.unsqueeze(-1), near] < rank[frame, residue].unsqueeze(-1)
        seen |= ~turning(system)[near]
        chains = SideChains(self.packing, h, scene, system)
        chains.choose(frame, residue, seen, pick, counts)


def _by_system(values: Tensor, system: Tensor, count: int) -> Tensor:
    """Sums of values [F, n] over the particles of each system: [F, count]."""
    total = torch.zeros(len(values), count, dtype=values.dtype, device=values.device)
    return total.index_add(1, system, values)
