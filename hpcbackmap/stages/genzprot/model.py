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
from hpcbackmap.stages.genzprot.clashes import overlaps
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
from hpcbackmap.stages.genzprot.keep_known import keep_known
from hpcbackmap.stages.genzprot.push import push
from hpcbackmap.stages.genzprot.relieve import relieve
from hpcbackmap.stages.genzprot.restraints import held_rows, pick_held
from hpcbackmap.stages.genzprot.settle import settle
from hpcbackmap.stages.genzprot.system import FLAGS, ResidueSystem, require_trace, residue_system
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
CHI = slice(Role.CHI1, Role.CHI1 + N_CHI)
BINS = (planes.BINS, *[packing.BINS] * N_CHI, *[chain_ends.BINS] * len(chain_ends.END_ROLES))
"""Bins of each role, [N_TORSIONS]."""
PARITY, RANK, SHIFT, LEVEL = 0, 1, slice(2, 5), 5
"""Columns of the noise of `elbo` and `loss`: which planes come first, order of side chains, displacement of
the C-alpha atoms in training and its size (of the first residue)."""
AGAIN = LEVEL
"""Column of the noise of a member for planes that are drawn once more; it displaces nothing."""
DRAWS = 6
"""From this column on, noise is for torsions: one each, then one for each chi of each redraw."""
RIGID_SHARE = 0.005
"""Weight of bonds and angles beside the torsions in the loss. Parameters of their own learn them, so that it
only keeps their gradients, which are a hundred times as large, from ruling what is clipped."""
OFFSET_UNIT = 0.01
"""nm and rad; deviations are small, so that a step of the optimiser must not take them to their bounds."""
FULL_CLASH = 0.1
"""Overlap (nm) that counts as one clash in the steric term."""


Rows = tuple[Tensor, ...]
"""Frames and residues [n] each."""
Counts = tuple[int, ...]
"""How many of them have each chi torsion."""


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
    by_heart = frozenset({"known.weight"})
    bins: Tensor
    config: GenzprotConfig

    def __init__(
        self, fine: str, coarse: str, config: GenzprotConfig, ladder: Ladder | None = None
    ):
        super().__init__(fine, coarse)
        self.config = config
        self.ladder = ladder if config.per_system else None
        width = config.width
        self.latent = 0
        self.noise_width = DRAWS + N_TORSIONS + N_CHI * config.redraws
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
        if self.ladder is not None:
            self.known = nn.Embedding(self.ladder.topology.n_residues, width)
            nn.init.zeros_(self.known.weight)

    def require(self, ladder: Ladder) -> None:
        self.require_molecule(ladder)
        require_trace(ladder, self.coarse)

    def describe(self, ladder: Ladder) -> ResidueSystem:
        self.require(ladder)
        return residue_system(ladder, self.coarse)

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
        rows, _ = self._turning_rows(system, len(z))
        add_side_chains(scene, side_chain_rows(scene, torsions[..., CHI][rows], *rows), *rows)
        return flat(scene.atoms, system)

    @torch.no_grad()
    def mode(self, coarse: Tensor, system: ResidueSystem, given: Given | None = None) -> Tensor:
        """Planes at a joint mode, then side chains, the most certain first; those in contact settle."""
        context = self._context(coarse, system, given)
        even = (system.place % 2 == 0).expand(coarse.shape[:2])
        expected = self._rigid(context, coarse, system)
        tables = planes.angle_tables(coarse, expected, system)
        turns = self.planes.mode(context.h, even, tables, system)
        torsions = self._with_ends(context.h, turns, system, lambda role, _, x: angle_of_mode(x))
        scene = self._unpressed(context, torsions, expected, coarse, tables, system, given)
        self._pack(context, scene, self._doubt(context, scene, system), system, most_likely)
        settle(self.packing, context.h, scene, system, self._free(scene, system))
        return self._untangled(scene, system)

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
        """What lowers the clashes of side chains drawn among generated neighbours, and clashes per residue.

        The first is the score-function estimator of the gradient (Williams 1992): two draws of every side
        chain, each the other's baseline.
        """
        with torch.no_grad():
            scene = self._generate(context, coarse, system, noise)
        (frame, residue), counts = self._moving_rows(system, len(coarse))
        everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
        clashes, scores = [], []
        for columns in noise[..., DRAWS + N_TORSIONS :].unflatten(-1, (-1, N_CHI)).unbind(-2):
            score = torch.zeros_like(noise[..., 0])

            def pick(
                k: int,
                logits: Tensor,
                f: Tensor,
                r: Tensor,
                columns: Tensor = columns,
                score: Tensor = score,
            ) -> Tensor:
                angle = draw(logits.detach(), columns[f, r, k])
                score[f, r] = score[f, r] + log_density(logits, angle)
                return angle

            chi = self._choose(context.h, scene, frame, residue, everyone, system, pick, counts)
            with torch.no_grad():
                side = side_chain_rows(scene, chi, frame, residue)
                depth = overlaps(side, scene, frame, residue)
            clashes.append((depth / FULL_CLASH).clamp_max(1.0))
            scores.append(score[frame, residue])
        difference = 0.5 * (clashes[0] - clashes[1]) * (scores[0] - scores[1])
        return difference.mean(), (clashes[0] + clashes[1]).mean() / 2

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
        tables: planes.AngleTables,
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
        scene = make_scene(atoms, context.near, context.valid, system, expected)
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
        again = noise[..., DRAWS + N_TORSIONS :].unflatten(-1, (-1, N_CHI)).unbind(-2)
        self._redraw(context, scene, system, [drawn(columns) for columns in again])
        return self._untangled(scene, system)

    def _untangled(self, scene: Scene, system: ResidueSystem) -> Tensor:
        """Atoms [F, A, 3] of a finished scene, its side chains moved out of overlaps."""
        moving = self._moving(system)
        push(scene, system, moving)
        ease(scene, system, moving)
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
        tables = planes.angle_tables(coarse, expected, system)
        again = noise[..., AGAIN].to(coarse)
        turns = self.planes.draw(context.h, draws[..., Role.PLANE], again, first, tables, system)
        torsions = self._with_ends(
            context.h, turns, system, lambda role, residues, x: draw(x, draws[:, residues, role])
        )
        scene = self._unpressed(context, torsions, expected, coarse, tables, system, given)
        self._pack(context, scene, rank, system, drawn(draws[..., CHI]))
        return scene

    @staticmethod
    def _turning(system: ResidueSystem) -> Tensor:
        """Residues with a chi torsion, bool [R]."""
        return system.torsion_mask[:, Role.CHI1]

    @staticmethod
    def _moving(system: ResidueSystem) -> Tensor:
        """Residues whose side chains may draw again: all that turn but proline, bool [R]."""
        return system.torsion_mask[:, Role.CHI1] & ~system.proline

    def _free(self, scene: Scene, system: ResidueSystem) -> Tensor:
        """Residues whose side chains may settle: all that move but those held by beads, bool [R]."""
        moving = self._moving(system)
        if scene.beads is None:
            return moving
        return moving & ~torch.isfinite(scene.beads.position).flatten(2).any(-1).any(0)

    def _turning_rows(self, system: ResidueSystem, frames: int) -> tuple[Rows, Counts]:
        """Frame and residue of all that turn, in ``frames`` frames, and how many have each chi."""
        counts = tuple(frames * number for number in system.torsions[CHI])
        return places(self._turning(system).expand(frames, -1), counts[0]), counts

    def _moving_rows(self, system: ResidueSystem, frames: int) -> tuple[Rows, Counts]:
        """The same of all that may draw again."""
        counts = tuple(frames * number for number in system.moving[CHI])
        return places(self._moving(system).expand(frames, -1), counts[0]), counts

    def _log_bin_width(self, like: Tensor) -> Tensor:
        return torch.log(2 * math.pi / self.bins.to(like))

    def _doubt(self, context: Context, scene: Scene, system: ResidueSystem) -> Tensor:
        """Rank in [0, 1) of each residue [F, R] by how uncertain chi 1 is while no side chain is there."""
        h = context.h
        (frame, residue), _ = self._turning_rows(system, len(h))
        nobody = torch.zeros_like(scene.near[frame, residue], dtype=torch.bool)
        seen = self.packing.see(h[frame, residue], scene, frame, residue, nobody)
        logits = self.packing.logits(seen, 0, system.proline[residue])
        doubt = torch.zeros(h.shape[:2], dtype=h.dtype, device=h.device)
        doubt[frame, residue] = 1 - logits.softmax(-1).square().sum(-1)
        whose = system.coarse_system
        order = (doubt + 2 * whose).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        return (order - system.first_bead[whose]) / system.n_beads[whose]

    def _pack(
        self, context: Context, scene: Scene, rank: Tensor, system: ResidueSystem, pick: Pick
    ) -> None:
        """Place all side chains into the scene, a share of the residues at a time in order of ``rank``."""
        turn = (rank * self.config.rounds).long()
        turning = self._turning(system)
        placed = (~turning).repeat(len(turn), 1)
        for k in range(self.config.rounds):
            frame, residue = rows = _rows((turn == k) & turning)
            if len(frame) == 0:
                continue
            seen = placed[frame.unsqueeze(-1), scene.near[rows]]
            chi = self._choose(context.h, scene, frame, residue, seen, system, pick)
            add_side_chains(scene, side_chain_rows(scene, chi, *rows), *rows)
            placed[rows] = True

    def _redraw(
        self, context: Context, scene: Scene, system: ResidueSystem, picks: list[Pick]
    ) -> None:
        """Side chains that run into others draw again, given all others; the better of the two stays."""
        (frame, residue), _ = self._moving_rows(system, len(scene.near))
        for pick in picks:
            depth = overlaps(scene.atoms[frame, residue], scene, frame, residue)
            hit = depth > 0
            if not hit.any():
                break
            frame, residue, depth = frame[hit], residue[hit], depth[hit]
            everyone = torch.ones_like(scene.near[frame, residue], dtype=torch.bool)
            chi = self._choose(context.h, scene, frame, residue, everyone, system, pick)
            side = side_chain_rows(scene, chi, frame, residue)
            better = overlaps(side, scene, frame, residue) < depth
            add_side_chains(scene, side[better], frame[better], residue[better])

    def _choose(
        self,
        h: Tensor,
        scene: Scene,
        frame: Tensor,
        residue: Tensor,
        seen: Tensor,
        system: ResidueSystem,
        pick: Pick,
        counts: Counts | None = None,
    ) -> Tensor:
        """Torsions chi of rows (frame, residue) [n] that ``pick`` takes one after another: [n, N_CHI].

        seen: bool [n, K], neighbours whose side chains are there. counts: rows with each chi, where that is
        known without asking the device.
        """
        context = self.packing.see(h[frame, residue], scene, frame, residue, seen)
        if scene.beads is None:
            return self._pick(context, frame, residue, system, pick, counts)
        chi = torch.zeros(len(frame), N_CHI, dtype=h.dtype, device=h.device)
        held = held_rows(scene, frame, residue)
        free = torch.nonzero(~held).squeeze(-1)
        held = torch.nonzero(held).squeeze(-1)
        chi[free] = self._pick(context[free], frame[free], residue[free], system, pick)
        chi[held] = pick_held(
            self.packing, context[held], scene, frame[held], residue[held], system, pick
        )
        return chi

    def _pick(
        self,
        context: Tensor,
        frame: Tensor,
        residue: Tensor,
        system: ResidueSystem,
        pick: Pick,
        counts: Counts | None = None,
    ) -> Tensor:
        """`_choose` given what the rows make of their surroundings, [n, W]."""
        chi = torch.zeros(len(frame), N_CHI, dtype=context.dtype, device=context.device)
        for k in range(N_CHI):
            there = system.torsion_mask[residue, Role.CHI1 + k]
            (rows,) = _rows(there) if counts is None else places(there, counts[k])
            if len(rows) == 0:
                break
            logits = self.packing.logits(context[rows], k, system.proline[residue[rows]])
            chi[rows, k] = pick(k, logits, frame[rows], residue[rows]).to(chi)
            if k + 1 < N_CHI:
                context = self.packing.after(context, k, chi[:, k], there)
        return chi

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
        tables = planes.angle_tables(coarse, expected, system)
        nats[..., Role.PLANE] = self.planes.log_density(h, turns, first, tables, system)

        def at_ends(role: Role, residues: Tensor, logits: Tensor) -> Tensor:
            nats[:, residues, role] = log_density(logits, truth[:, residues, role])
            return truth[:, residues, role]

        self.ends.torsions(h, turns, system, at_ends)
        scene = make_scene(fine[:, system.atom_index], context.near, context.valid, system)
        turning = self._turning(system)
        (frame, residue), counts = self._turning_rows(system, len(h))
        near = scene.near[frame, residue]
        seen = rank[frame.unsqueeze(-1), near] < rank[frame, residue].unsqueeze(-1)
        seen |= ~turning[near]

        def side(k: int, logits: Tensor, f: Tensor, r: Tensor) -> Tensor:
            angle = truth[f, r, Role.CHI1 + k]
            nats[f, r, Role.CHI1 + k] = log_density(logits, angle)
            return angle

        self._choose(h, scene, frame, residue, seen, system, side, counts)
        return nats


def _order(noise: Tensor, system: ResidueSystem) -> tuple[Tensor, Tensor]:
    """Planes that come first [F, R] (all even or all odd ones of a molecule) and rank of side chains [F, R]."""
    odd = noise[:, system.first_bead[system.coarse_system], PARITY] > 0
    rank = torch.special.ndtr(noise[..., RANK]).clamp(0, 1 - 1e-6)
    return (system.place % 2 == 1) == odd, rank


def _rows(mask: Tensor) -> tuple[Tensor, ...]:
    """Frame and residue of the set entries of a mask [F, R], which the device has to count first."""
    return torch.nonzero(mask, as_tuple=True)


def _by_system(values: Tensor, system: Tensor, count: int) -> Tensor:
    """Sums of values [F, n] over the particles of each system: [F, count]."""
    total = torch.zeros(len(values), count, dtype=values.dtype, device=values.device)
    return total.index_add(1, system, values)
