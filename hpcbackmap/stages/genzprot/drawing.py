"""Structures of a heavy-atom stage: members of the prior, the one answer, and that of given bins."""

import math

import torch
from torch import Tensor

from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.choose_rotamer import drawn, most_likely
from hpcbackmap.stages.genzprot.dense_atoms import (
    GivenBeads,
    Scene,
    add_side_chains,
    backbone_atoms,
    flat,
    side_chain_rows,
)
from hpcbackmap.stages.genzprot.ease import ease
from hpcbackmap.stages.genzprot.joints import planes_ahead
from hpcbackmap.stages.genzprot.keep_known import keep_known
from hpcbackmap.stages.genzprot.network import Context, HeavyAtomNetwork
from hpcbackmap.stages.genzprot.noise_columns import (
    AGAIN,
    TORSIONS,
    order,
    partner_columns,
    redraw_columns,
)
from hpcbackmap.stages.genzprot.partners import meet
from hpcbackmap.stages.genzprot.place_side_chains import (
    CHI,
    SideChains,
    free,
    moving,
    turning_rows,
)
from hpcbackmap.stages.genzprot.plane_tables import AngleTables
from hpcbackmap.stages.genzprot.push import push
from hpcbackmap.stages.genzprot.relieve import relieve
from hpcbackmap.stages.genzprot.settle import settle
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, draw
from hpcbackmap.stages.given import Given

__all__ = ["Drawing"]


class Drawing(HeavyAtomNetwork):
    """Draws torsions, places what hangs on them and finishes the structure."""

    takes_given = True

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
            meet(chains, *partner_columns(noise, self.config.redraws))
        again = redraw_columns(noise, self.config.redraws)
        chains.redraw([drawn(columns) for columns in again.unbind(-2)])
        return self._untangled(scene, system, given)

    def _generate(
        self,
        context: Context,
        coarse: Tensor,
        system: ResidueSystem,
        noise: Tensor,
        given: Given | None = None,
    ) -> Scene:
        """A structure drawn from the prior, before any redraw."""
        first, rank = order(noise, system)
        draws = noise[..., TORSIONS].to(coarse)
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

    def _untangled(self, scene: Scene, system: ResidueSystem, given: Given | None) -> Tensor:
        """Atoms [F, A, 3] of a finished scene, moved out of overlaps; a backbone that is given stays."""
        push(scene, system, moving(system))
        planes = planes_ahead(system)
        if given is not None and given.known is not None:
            planes = torch.zeros_like(planes)
        ease(scene, system, moving(system), planes)
        return flat(scene.atoms, system)
