"""How far the residues of a run's structures are likely to be from the truth."""

import numpy as np

from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.source import FileSystem, SourceSystem
from hpcbackmap.stages.expected_error import expected_error

__all__ = ["expected_errors"]


def expected_errors(plan: Plan, system: SourceSystem, made: np.ndarray) -> np.ndarray | None:
    """Of each residue of structures [S, A, 3], nm [S, R]; see `stages.expected_error`.

    None where it is not known: of structures that a reference guided, and of stores.
    """
    if plan.reference is not None or not isinstance(system, FileSystem):
        return None
    kind = system.reading.representation if plan.start == "ca" else plan.start
    return expected_error(system.ladder, made, kind, plan.mode)
