"""What a heavy-atom stage is made of, and what it makes of a C-alpha trace before any torsion is known."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.genzprot import chain_ends, ideal_geometry, packing, planes
from hpcbackmap.stages.genzprot.dense_atoms import Scene, make_scene
from hpcbackmap.stages.genzprot.images import Surroundings, surroundings
from hpcbackmap.stages.genzprot.noise_columns import DRAWS, TORSIONS, member_width
from hpcbackmap.stages.genzprot.plane_tables import AngleTables, angle_tables
from hpcbackmap.stages.genzprot.steric import STERIC_DRAWS
from hpcbackmap.stages.genzprot.system import FLAGS, ResidueSystem, require_trace, residue_system
from hpcbackmap.stages.genzprot.torsion_bias import TorsionBias
from hpcbackmap.stages.given import Given
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.network import MessageLayers

__all__ = ["BINS", "Context", "HeavyAtomNetwork"]

REACH = 2.0
"""Reach of the radial basis, nm."""
SPREAD = (0.002, 0.04, 0.08)
"""Starting standard deviations of distance (nm), angle and fixed dihedral (rad)."""
SURROUNDINGS = 20
"""Nearest residues whose atoms a side chain sees and may run into."""
BINS = (planes.BINS, *[packing.BINS] * N_CHI, *[chain_ends.BINS] * len(chain_ends.END_ROLES))
"""Bins of each role, [N_TORSIONS]."""
OFFSET_UNIT = 0.01
"""nm and rad; deviations are small, so that a step of the optimiser must not take them to their bounds."""


class Context(NamedTuple):
    """What the C-alpha trace alone tells: features [F, R, W], nearest residues and validity [F, R, K].

    around: neighbours with their periodic images, where a box is given and repeats something near.
    """

    h: Tensor
    near: Tensor
    valid: Tensor
    around: Surroundings | None = None


class HeavyAtomNetwork(Stage[ResidueSystem]):
    """Trunk, heads of the distributions, and weights of one protein, if it is learned by heart."""

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
        self.noise_width = member_width(config.redraws)
        self.elbo_noise = DRAWS
        if config.steric_weight:
            self.elbo_noise = TORSIONS.stop + N_CHI * STERIC_DRAWS
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
