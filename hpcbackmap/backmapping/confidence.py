"""How far the residues of a run's structures are likely to be from the truth."""

import numpy as np

from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.source import FileSystem, SourceSystem
from hpcbackmap.stages.expected_error import expected_error

__all__ = ["EXPECTED_ERROR", "expected_errors", "known_kind"]

EXPECTED_ERROR = "expected_error"
"""What a store calls it, among its numbers of residues."""


def expected_errors(plan: Plan, system: SourceSystem, made: np.ndarray) -> np.ndarray | None:
    """Of each residue of structures [S, A, 3], nm [S, R]; see `stages.expected_error`.

    None where it is not known.
    """
    kind = known_kind(plan, system)
    return None if kind is None else expected_error(system.ladder, made, kind, plan.mode)


def known_kind(plan: Plan, system: SourceSystem) -> str | None:
    """What the structures are made from, as `expected_error` has it; None if their errors are not known.

    They are not of structures that a reference guided, nor of a campaign's beads for single residues, whose
    stages are its own.
    """
    if plan.reference is not None:
        return None
    if isinstance(system, FileSystem):
        return system.reading.representation if plan.start == "ca" else plan.start
    several = 2 * system.n_particles(plan.start) <= system.ladder.topology.n_residues
    return plan.start if plan.start == "ca" or several else None
