"""What a user is told of structures that were relaxed, and of those that could not be."""

from importlib.metadata import version
from typing import Any

import numpy as np

from hpcbackmap.backmapping.records import Records
from hpcbackmap.finishing.relax import PLATFORM
from hpcbackmap.runtime.errors import IncompleteError

__all__ = ["relaxation_in_words", "require_relaxed"]


def relaxation_in_words(records: Records) -> dict[str, dict[str, Any]]:
    """Under ``relaxation``: counts, median energies, and what was left as it was; empty without relaxation."""
    if not records.plan.relaxes:
        return {}
    energies, kept = records.relaxation()
    before, after = np.median(energies, axis=0) if energies else (float("nan"), float("nan"))
    return {
        "relaxation": {
            "relaxed": len(energies),
            "failed": len(kept),
            "kj_per_mol_residue_before": round(float(before), 1) if energies else None,
            "kj_per_mol_residue_after": round(float(after), 1) if energies else None,
            "with": f"ff14SB, OBC2, OpenMM {version('openmm')}, {PLATFORM} platform, 1 thread",
            "unrelaxed": kept,
        }
    }


def require_relaxed(result: dict[str, Any]) -> None:
    """Raises IncompleteError if a finished run has structures that could not be relaxed."""
    found = result.get("relaxation") or {}
    if found.get("failed"):
        first, all_of_them = found["unrelaxed"][0], found["failed"] + found["relaxed"]
        raise IncompleteError(
            f"{found['failed']} of {all_of_them} structures could not be relaxed and stand as they were made; "
            f"the first: frame {first['frame']} member {first['member']}: {first['reason']}"
        )
