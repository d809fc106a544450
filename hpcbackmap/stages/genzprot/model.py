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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Elbo, Stage
from hpcbackmap.stages.genzprot import chain_ends, ideal_geometry, packing, planes
from hpcbackmap.stages.genzprot.choose_rotamer import Pick, drawn, most_likely
from hpcbackmap.stages.genzprot.dense_atoms import (
    GivenBeads,
    Scene,
    add_side_chains,
    backbone_atoms,
    flat,
    make_scene,
    side_chain_rows,
)
from hpcbackmap.stages.genzprot.ease import ease
from hpcbackmap.stages.genzprot.images import Surroundings, surroundings
from hpcbackmap.stages.genzprot.joints import planes_ahead
from hpcbackmap.stages.genzprot.keep_known import keep_known
from hpcbackmap.stages.genzprot.partners import DRAWN, meet
from hpcbackmap.stages.genzprot.place_side_chains import (
    CHI,
    SideChains,
    free,
    moving,
    turning,
    turning_rows,
)
from hpcbackmap.stages.genzprot.plane_tables import AngleTables, angle_tables
from hpcbackmap.stages.genzprot.push import push
from hpcbackmap.stages.genzprot.relieve import relieve
from hpcbackmap.stages.genzprot.settle import settle
from hpcbackmap.stages.genzprot.steric import steric_term
from hpcbackmap.stages.genzprot.system import FLAGS, ResidueSystem, require_trace, residue_system
from hpcbackmap.stages.genzprot.torsion_bias import Observed, TorsionBias, frames_to_observe
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, bin_of, draw, log_density
from hpcbackmap.stages.given import Given
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.network import MessageLayers
from hpcbackmap.stages.layers.on_host import places

__all__ = ["Genzprot"]

REACH = 2.0
"""Reach of the radial basis, nm."""
SPREAD = (0.002, 0.04, 0.08)
"""Starting standard deviations of distance (nm), angle and fixed dihedral (rad)."""
SURROUNDINGS = 20
"""Nearest residues whose atoms a side chain sees and may run into."""
BINS = (planes.BINS, *[packing.BINS] * N_CHI, *[chain_ends.BINS] * len(chain_ends.END_ROLES))
"""Bins of each role, [N_TORSIONS]."""
PARITY, RANK, SHIFT, LEVEL = 0, 1, slice(2, 5), 5
"""Columns of the noise of `elbo` and `loss`: which planes come first, order of side chains, displacement of
the C-alpha atoms in training and its size (of the first residue)."""
AGAIN = slice(3, 6)
"""Columns of the noise of a member, which displaces nothing: for planes once more, then twice at outliers."""
DRAWS = 6
"""From this column on, noise is for torsions: one each, then one for each chi of each redraw."""
RIGID_SHARE = 0.005
"""Weight of bonds and angles beside the torsions in the loss. Parameters of their own learn them, so that it
only keeps their gradients, which are a hundred times as large, from ruling what is clipped."""
OFFSET_UNIT = 0.01
"""nm and rad; deviations are small, so that a step of the optimiser must not take them to their bounds."""

OBSERVED = 16
"""Frames whose torsions are observed at a time, which bounds the memory."""
GOLDEN = (1 + math.sqrt(5)) / 2


class Context(NamedTuple):
    """What the C-alpha trace alone tells: features [F, R, W], nearest residues and validity [F, R, K].

    around: neighbours with their periodic images, where a box is given and repeats something near.
    """

    h: Tensor
    near: Tensor
    valid: Tensor
    around: Surroundings | None = None


class Genzprot(Stage[ResidueSystem]):
    kind = "genzprot"
    variance = "one per atom type and internal coordinate, learned"
    takes_given = True
    by_heart = frozenset({"known.weight", "bias.planes", "bias.chi"})
    bins: Tensor
    bias: TorsionBias | None
    config: GenzprotConfig

    def __init__(
        self, fine: str, coarse: str, config: GenzprotConfig, ladder: Ladder | None = None
    ):
        super().__init__(fine, coarse)
        self.config = config
        self.ladder = ladder if config.per_system else None
        width = config.width
        self.latent = 0
        self.drawn = DRAWS + N_TORSIONS + N_CHI * config.redraws
        self.noise_width = self.drawn + N_CHI * DRAWN + 1
        self.elbo_noise = DRAWS + (N_TORSIONS + 2 * N_CHI if config.steric_weight else 0)
        self.residue = nn.Embedding(len(RESIDUES), width)
        self.shape = nn.Linear(geometry.CHAIN_FEATURES + FLAGS, width)
        self.trunk = MessageLayers(width, config.layers)
        self.planes = planes.PlaneHead(width)
        self.ends = chain_ends.EndHead(width)
        self.packing = packing.PackingHead(width)
        self.offsets = nn.Linear(width, MAX_ATOMS * 3)
        self.register_buffer("bins", torch.tensor(BINS), persistent=False)
        self.log_spread = nn.Parameter(
            torch.log(torch.tensor(SPREAD)).repeat(len(RESIDUES) * MAX_ATOMS, 1)
        )
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)
        self.bias = None
        if self.ladder is not None:
            residues = self.ladder.topology.n_residues
            self.known = nn.Embedding(residues, width)
            nn.init.zeros_(self.known.weight)
            if config.torsion_bias:
                self.bias = TorsionBias(residues)

    def require(self, ladder: Ladder) -> None:
        self.require_molecule(ladder)
        require_trace(ladder, self.coarse)

    def describe(self, ladder: Ladder) -> ResidueSystem:
        self.require(ladder)
        return residue_system(ladder, self.coarse)

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

    @torch.no_grad()
    def decode(self, z: Tensor, coarse: Tensor, system: ResidueSystem) -> Tensor:
        """Structure with every torsion at the centre of its bin ``z`` [F, R, N_TORSIONS]."""
        torsions = ((z + 0.5) * (2 * math.pi / self.bins) - math.pi).to(coarse)
        context = self._context(coarse, system)
        scene = self._backbone(
            context, torsions, self._rigid(context, coarse, system), coarse, system
        )
        rows, _ = turning_rows(system, len(z))
        add_side_chains(scene, side_chain_rows(scene, torsions[..., CHI][rows], *rows), *rows)
        return flat(scene.atoms, system)

    @torch.no_grad()
    def mode(self, coarse: Tensor, system: ResidueSystem, given: Given | None = None) -> Tensor:
        """Planes at a joint mode, then side chains, the most certain first; those in contact settle."""
        context = self._context(coarse, system, given)
        even = (system.place % 2 == 0).expand(coarse.shape[:2])
        expected = self._rigid(context, coarse, system)
        tables = self._tables(coarse, expected, system)
        turns = self.planes.mode(context.h, even, tables, system)
        torsions = self._with_ends(context.h, turns, system, lambda role, _, x: angle_of_mode(x))
        scene = self._unpressed(context, torsions, expected, coarse, tables, system, given)
        chains = SideChains(self.packing, context.h, scene, system)
        chains.place(chains.doubt(), self.config.rounds, most_likely)
        settle(self.packing, context.h, scene, system, free(scene, system))
        return self._untangled(scene, system, given)

    def sample(self, coarse: Tensor, system: ResidueSystem, noise: Tensor) -> Tensor:
        """Prior member. Side chains in contact with another residue draw their torsions again."""
        return self.samples(coarse, system, [noise])[0]

    @torch.no_grad()
    def samples(
        self,
        coarse: Tensor,
        system: ResidueSystem,
        noises: list[Tensor],
        given: Given | None = None,
    ) -> list[Tensor]:
        context = self._context(coarse, system, given)
        return [self._member(context, coarse, system, noise, given) for noise in noises]

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
        return steric_term(chains, _redraw_columns(noise[..., : self.elbo_noise]))

    def _context(
        self, coarse: Tensor, system: ResidueSystem, given: Given | None = None
    ) -> Context:
        frames = geometry.local_frames(coarse, system.bead_before, system.bead_after)
        k = max(self.config.neighbours, SURROUNDINGS)
        near, valid = geometry.nearest(coarse, system.coarse_sizes, k)
        index, there = (x[..., : self.config.neighbours].contiguous() for x in (near, valid))
        separation = system.place[index] - system.place.view(1, -1, 1)
        separation = torch.where(system.chain[index] == system.chain.view(1, -1, 1), separation, 0)
        shape = geometry.chain_shape(coarse, system.bead_before, system.bead_after, REACH)
        flags = system.flags.expand(len(coarse), -1, -1).to(coarse)
        h = self.residue(system.residue_type) + self.shape(torch.cat([shape, flags], -1))
        if self.ladder is not None:
            h = h + self.known(system.place)
        edges = geometry.edge_features(coarse, frames, index, REACH)
        h = self.trunk(h, edges, index, there, separation)
        near, valid = near[..., :SURROUNDINGS], valid[..., :SURROUNDINGS]
        cells = given.cells if given is not None and system.n_systems == 1 else None
        return Context(h, near, valid, surroundings(coarse, near, valid, cells))

    def _rigid(self, context: Context, coarse: Tensor, system: ResidueSystem) -> Tensor:
        offsets = OFFSET_UNIT * self.offsets(context.h.detach()).unflatten(-1, (MAX_ATOMS, 3))
        return ideal_geometry.expected_geometry(offsets, coarse, system)

    def _tables(self, coarse: Tensor, expected: Tensor, system: ResidueSystem) -> AngleTables:
        tables = angle_tables(coarse, expected, system)
        if self.bias is None:
            return tables
        return tables._replace(bias=self.bias.planes[system.place])

    def _scene(
        self,
        atoms: Tensor,
        context: Context,
        system: ResidueSystem,
        expected: Tensor | None = None,
    ) -> Scene:
        scene = make_scene(atoms, context.near, context.valid, system, expected)
        if self.bias is None:
            return scene
        return scene._replace(bias=self.bias.chi[system.place])

    def _with_ends(
        self, h: Tensor, turns: Tensor, system: ResidueSystem, choose: chain_ends.Choose
    ) -> Tensor:
        """Torsions [F, R, N_TORSIONS] with planes and chain ends filled in, chi still 0."""
        torsions = torch.zeros(*turns.shape, N_TORSIONS, dtype=turns.dtype, device=turns.device)
        torsions[..., Role.PLANE] = turns
        for role, (residues, angles) in self.ends.torsions(h, turns, system, choose).items():
            torsions[:, residues, role] = angles
        return torsions

    def _unpressed(
        self,
        context: Context,
        torsions: Tensor,
        expected: Tensor,
        coarse: Tensor,
        tables: AngleTables,
        system: ResidueSystem,
        given: Given | None,
    ) -> Scene:
        """The backbone of ``torsions``, planes that press on others turned away; one that is given stays."""
        scene = self._backbone(context, torsions, expected, coarse, system, given)
        if given is not None and given.known is not None:
            return scene
        turns = relieve(self.planes, context.h, torsions[..., Role.PLANE], scene, tables, system)
        if torch.equal(turns, torsions[..., Role.PLANE]):
            return scene
        turned = torsions.clone()
        turned[..., Role.PLANE] = turns
        return self._backbone(context, turned, expected, coarse, system, given)

    def _backbone(
        self,
        context: Context,
        torsions: Tensor,
        expected: Tensor,
        coarse: Tensor,
        system: ResidueSystem,
        given: Given | None = None,
    ) -> Scene:
        atoms = backbone_atoms(expected, torsions, coarse, system)
        if given is not None and given.known is not None:
            atoms = keep_known(atoms, given.known, expected, torsions, system)
        scene = self._scene(atoms, context, system, expected)
        if context.around is not None:
            scene = scene._replace(**context.around._asdict())
        if given is None or given.beads is None or given.shares is None:
            return scene
        return scene._replace(beads=GivenBeads(given.beads, given.shares, given.tolerance))

    def _member(
        self,
        context: Context,
        coarse: Tensor,
        system: ResidueSystem,
        noise: Tensor,
        given: Given | None,
    ) -> Tensor:
        scene = self._generate(context, coarse, system, noise, given)
        chains = SideChains(self.packing, context.h, scene, system)
        if self.ladder is None:
            columns = noise[..., self.drawn : self.noise_width - 1].unflatten(-1, (-1, N_CHI))
            meet(chains, columns, noise[..., self.noise_width - 1])
        again = _redraw_columns(noise[..., : self.drawn])
        chains.redraw([drawn(columns) for columns in again.unbind(-2)])
        return self._untangled(scene, system, given)

    def _untangled(self, scene: Scene, system: ResidueSystem, given: Given | None) -> Tensor:
        """Atoms [F, A, 3] of a finished scene, moved out of overlaps; a backbone that is given stays."""
        push(scene, system, moving(system))
        planes = planes_ahead(system)
        if given is not None and given.known is not None:
            planes = torch.zeros_like(planes)
        ease(scene, system, moving(system), planes)
        return flat(scene.atoms, system)

    def _generate(
        self,
        context: Context,
        coarse: Tensor,
        system: ResidueSystem,
        noise: Tensor,
        given: Given | None = None,
    ) -> Scene:
        """A structure drawn from the prior, before any redraw."""
        first, rank = _order(noise, system)
        draws = noise[..., DRAWS : DRAWS + N_TORSIONS].to(coarse)
        expected = self._rigid(context, coarse, system)
        tables = self._tables(coarse, expected, system)
        again = noise[..., AGAIN].to(coarse)
        turns = self.planes.draw(context.h, draws[..., Role.PLANE], again, first, tables, system)
        torsions = self._with_ends(
            context.h, turns, system, lambda role, residues, x: draw(x, draws[:, residues, role])
        )
        scene = self._unpressed(context, torsions, expected, coarse, tables, system, given)
        chains = SideChains(self.packing, context.h, scene, system)
        chains.place(rank, self.config.rounds, drawn(draws[..., CHI]))
        return scene

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
        first, rank = _order(noise, system)
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


def _order(noise: Tensor, system: ResidueSystem) -> tuple[Tensor, Tensor]:
    """Planes that come first [F, R] (all even or all odd ones of a molecule) and rank of side chains [F, R]."""
    odd = noise[:, system.first_bead[system.coarse_system], PARITY] > 0
    rank = torch.special.ndtr(noise[..., RANK]).clamp(0, 1 - 1e-6)
    return (system.place % 2 == 1) == odd, rank


def _redraw_columns(noise: Tensor) -> Tensor:
    """Of the noise, what side chains draw again by: [F, R, redraws, N_CHI]."""
    columns: Tensor = noise[..., DRAWS + N_TORSIONS :].unflatten(-1, (-1, N_CHI))
    return columns


def _by_system(values: Tensor, system: Tensor, count: int) -> Tensor:
    """Sums of values [F, n] over the particles of each system: [F, count]."""
    total = torch.zeros(len(values), count, dtype=values.dtype, device=values.device)
    return total.index_add(1, system, values)
