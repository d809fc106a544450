"""The trace stage with a known structure of the protein: carried onto the beads, frame by frame.

What carrying bends the denoiser mends, in the last steps of its flow.
Where the structure is of another fold than the beads (its contacts do not survive the carrying), a frame is
made as if there were no reference.
"""

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.protein.residues import CIS_BORDER
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Drawn
from hpcbackmap.stages.given import Given
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.system import Plain
from hpcbackmap.stages.trace.elastic import Carried, Elastic
from hpcbackmap.stages.trace.model import CLOSING, Trace
from hpcbackmap.stages.trace.network import Context
from hpcbackmap.stages.trace.reference import Reference
from hpcbackmap.stages.trace.system import TraceSystem

__all__ = ["Guided", "GuidedSystem"]

MENDED_ANSWER, MENDED_MEMBER = 0.08, 0.15
"""Widths of noise (nm) that a carried trace is taken to be seen through: what is farther off is the reference's
to say."""
STRAINED = 0.02
"""nm: a reference that beads strain less than so is nearer the truth than what the denoiser makes of it."""


class GuidedSystem(TraceSystem):
    """reference [N, 3]: C-alpha atoms of the reference, nm, NaN where it has none. group [N]: residues of it
    whose places belong together.
    """

    reference: Plain
    group: Plain


class Guided(Trace):
    """The weights of ``trace``."""

    def __init__(self, trace: Trace, reference: Reference):
        super().__init__(trace.fine, trace.coarse, trace.config)
        self.network, self.denoiser, self.reference = trace.network, trace.denoiser, reference

    def require(self, ladder: Ladder) -> None:
        super().require(ladder)
        self.reference.placed(ladder.topology)

    def describe(self, ladder: Ladder) -> GuidedSystem:
        system, placed = GuidedSystem(), self.reference.placed(ladder.topology)
        for key, value in vars(super().describe(ladder)).items():
            setattr(system, key, value)
        system.reference = torch.from_numpy(placed.calpha)
        system.group = torch.from_numpy(placed.group)
        return system

    def samples(self, coarse: Tensor, system: TraceSystem, noises: list[Tensor]) -> list[Tensor]:
        return self.draw(coarse, system, noises).structures

    def mode(self, coarse: Tensor, system: TraceSystem) -> Tensor:
        return self.draw(coarse, system, None).structures[0]

    def draw(
        self, coarse: Tensor, system: TraceSystem, noises: list[Tensor] | None, *given: Given
    ) -> Drawn:
        known = _as_guided(system)
        if noises is None:
            made, carried = self._mode(coarse, known)
        else:
            made, carried = self._samples(coarse, known, noises)
        return Drawn(made, np.array([not found.fits for found in carried]))

    def _samples(
        self, coarse: Tensor, known: GuidedSystem, noises: list[Tensor]
    ) -> tuple[list[Tensor], list[Carried]]:
        context = self.network.context(coarse, known)
        links = self._cis_links(context, known, noises)
        draws = self._draws(context, coarse, known, noises, links).unflatten(0, (len(noises), -1))
        answer, carried = self._carried(context, coarse, known)
        moved = (draws - answer).double().cpu().numpy()
        white = np.stack([_per_residue(noise, known).double().cpu().numpy() for noise in noises])
        for frame, found in enumerate(carried):
            if found.fits:
                pairs = zip(white[:, frame], moved[:, frame], strict=True)
                members = np.stack([found.member(*each) for each in pairs])
                draws[:, frame] = torch.from_numpy(members).to(draws)
        links = links.unflatten(0, (len(noises), -1))
        links = self._known_links(links, carried, known)
        pairs, fits = zip(draws, links, strict=True), [found.fits for found in carried]
        mended = [self._mended(*each, coarse, known, fits, MENDED_MEMBER) for each in pairs]
        closed = close_calpha(torch.cat(mended), known, links.flatten(0, 1), CLOSING)
        return list(closed.split(len(coarse))), carried

    def _mode(self, coarse: Tensor, known: GuidedSystem) -> tuple[list[Tensor], list[Carried]]:
        context = self.network.context(coarse, known)
        answer, carried = self._carried(context, coarse, known)
        for frame, found in enumerate(carried):
            if found.fits:
                answer[frame] = torch.from_numpy(found.positions).to(answer)
        links = self._known_links(self._cis_links(context, known), carried, known)
        bent = [found.fits and found.strain > STRAINED for found in carried]
        answer = self._mended(answer, links, coarse, known, bent, MENDED_ANSWER)
        return [close_calpha(answer, known, links, CLOSING)], carried

    def _mended(
        self,
        traces: Tensor,
        links: Tensor,
        coarse: Tensor,
        system: GuidedSystem,
        bent: list[bool],
        width: float,
    ) -> Tensor:
        """Traces [F, N, 3] through the end of the flow, those of frames that are ``bent``."""
        if self.denoiser is None or not any(bent):
            return traces
        own = torch.tensor(bent, device=traces.device)
        mended = self.denoiser.refined(traces[own], coarse[own], system, links[own], width)
        return traces.index_put((own,), mended)

    def uncertainty(self, coarse: Tensor, system: TraceSystem) -> Tensor:
        """Expected error of the one answer, nm [F, N]; alike for all residues where the reference is used."""
        context = self.network.context(coarse, system)
        expected = self.network.error(context, system).exp()
        for frame, found in enumerate(self._carried(context, coarse, _as_guided(system))[1]):
            if found.fits:
                expected[frame, torch.from_numpy(found.known).to(expected.device)] = found.error
        return expected

    def _carried(
        self, context: Context, coarse: Tensor, system: GuidedSystem
    ) -> tuple[Tensor, list[Carried]]:
        """The stage's own answer before closing [F, N, 3], and the reference in each frame.

        Beads of atoms are taken as the means of C-alpha atoms, which is nearer than what the stage makes of
        them.
        """
        answer = self._answer(context, coarse, system, self._cis_links(context, system))
        arrays = [coarse, answer, self.network.error(context, system).exp()]
        beads, traces, errors = (each.double().cpu().numpy() for each in arrays)
        elastic = Elastic(
            *(
                each.cpu().numpy()
                for each in (
                    system.reference,
                    system.group,
                    system.residue_chain,
                    system.bead_of,
                    system.weight.double(),
                )
            )
        )
        carried = [elastic.carry(*each) for each in zip(beads, traces, errors, strict=True)]
        return answer, carried

    def _known_links(self, cis: Tensor, carried: list[Carried], system: GuidedSystem) -> Tensor:
        """Which links are cis [..., F, bonds]: as the reference has them, where it is used."""
        first, second = system.bond_index.T
        length = (system.reference[second] - system.reference[first]).norm(dim=-1)
        fits = torch.tensor([found.fits for found in carried], device=cis.device)
        known = torch.isfinite(length) & (system.group[first] == system.group[second])
        return torch.where(fits[:, None] & known, length < CIS_BORDER, cis)


def _per_residue(noise: Tensor, system: TraceSystem) -> Tensor:
    """Three normals of each residue, [F, N, 3]; those of residues far apart in a long bead are the same."""
    columns = (3 * system.slot.unsqueeze(-1) + torch.arange(3, device=noise.device)) % (
        noise.shape[-1]
    )
    return noise[:, system.bead_of.unsqueeze(-1), columns]


def _as_guided(system: TraceSystem) -> GuidedSystem:
    if not isinstance(system, GuidedSystem):
        raise TypeError("a guided stage draws for systems that it has described")
    return system
