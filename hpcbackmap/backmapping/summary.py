"""What a user is told of the structures of a run, and where they are."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.backmapping.census import in_words
from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.records import Records
from hpcbackmap.backmapping.relaxation import relaxation_in_words
from hpcbackmap.backmapping.request import STORE, Targets
from hpcbackmap.backmapping.source import FileSource, FileSystem, Source
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.resolution.representations.protein_part import kind_word
from hpcbackmap.runtime.errors import InputError

__all__ = ["Finished", "NothingMade", "left_out_of", "of_structures", "places", "summarise"]

log = logging.getLogger(__name__)

SHOWN = 10
"""Bad frames that are named in the log."""


class NothingMade(InputError):
    """No frame of the input could be used."""


class Finished(NamedTuple):
    """A run that went down: its plan, where its shards are, how many are missing, what is quarantined."""

    plan: Plan
    made: Path
    missing: int
    quarantined: list[dict[str, Any]]


def summarise(done: Finished, source: FileSource) -> dict[str, Any]:
    """What a user is told of the structures. Raises NothingMade if no frame could be used."""
    system, topology, plan = source.only, source.only.ladder.topology, done.plan
    records = Records(plan, done.made)
    facts = records.facts()
    bad = _by_frame(done.quarantined, plan.rows_per_frame)
    if not facts.get("structures"):
        why = bad[0]["reason"] if bad else "no structure was made"
        raise NothingMade(
            f"{source.path}: none of its {plan.total_frames} frames could be backmapped; the first: {why}"
        )
    for item in bad[:SHOWN]:
        label = system.reader.label(item["frame"])
        log.warning("%s is left out: %s", label, item["reason"])
    if len(bad) > SHOWN:
        log.warning("%d more frames are left out", len(bad) - SHOWN)
    closed = int(facts.get("closed", 0))
    summary = {
        "frames": plan.total_frames,
        "members": plan.rows_per_frame,
        "structures": int(facts["structures"]),
        "representation": system.reading.representation,
        "chains": len(topology.chain_ids),
        "residues": topology.n_residues,
        "atoms": topology.n_atoms,
        "left_out": left_out_of(system),
        "closed_frames": closed,
    }
    if system.others is not None:
        summary["passed_through"] = system.others.counts
    if closed:
        summary["closed_displacement_angstrom"] = {
            "mean": round(10 * facts["moved"] / closed, 3),
            "most": round(10 * facts["most_moved"], 3),
        }
    summary |= _beads_in_words(system, facts)
    if plan.reference:
        aside = int(facts.get("reference_set_aside", 0))
        summary["reference_set_aside_frames"] = aside
        if aside:
            log.warning(
                "the reference is of another fold than the beads of %d frame(s): they are made without it",
                aside,
            )
    found = of_structures(plan, source, records)
    for item in found.get("relaxation", {}).get("unrelaxed", [])[:SHOWN]:
        label = system.reader.label(item["frame"])
        log.warning("%s, member %d, is not relaxed: %s", label, item["member"], item["reason"])
    return summary | found | {"quarantined": bad}


def of_structures(plan: Plan, source: Source, records: Records) -> dict[str, Any]:
    """What the structures of a run, all systems together, look like, and what the finish did to them.

    Disulphides, hydrogens and protonation states are those of one structure of each system.
    """
    facts = records.facts()
    bonds = sum(len(source.system(name).ladder.topology.disulphides) for name in plan.frames)
    found: dict[str, Any] = {}
    if bonds:
        found["disulphides"] = bonds
        found["disulphides_open"] = int(facts.get("open_disulphides", 0))
    finished = _finished_in_words(plan, source) | relaxation_in_words(records)
    return found | in_words(facts) | finished


def _beads_in_words(system: FileSystem, facts: dict[str, float]) -> dict[str, object]:
    """Of beads of several residues, what they are and how well they are met."""
    if "bead_of" not in system.reading.sites:
        return {}
    beads = np.bincount(system.reading.sites["bead_of"])
    few, many = int(beads.min()), int(beads.max())
    return {
        "beads": len(beads),
        "residues_per_bead": few if few == many else f"{few} to {many}",
        "bead_center": system.ladder.definition(system.ladder.resolutions[-1]),
        "largest_bead_error_angstrom": round(10 * facts.get("most_bead_error", 0.0), 5),
    }


def left_out_of(system: FileSystem) -> dict[str, int]:
    """Particles by kind that are neither read nor passed through."""
    passed = {kind_word(name) for name in system.others.counts} if system.others else set()
    return {kind: n for kind, n in system.reading.left_out.items() if kind not in passed}


def _finished_in_words(plan: Plan, source: Source) -> dict[str, Any]:
    """What the finish added, as a user reads it."""
    if not plan.finish or not plan.protonation:
        return {}
    states: Counter[str] = Counter()
    hydrogens = 0
    for name in plan.frames:
        topology = plan.protonated_ladder(name, source.system(name).ladder).topology
        states.update(state for state in topology.protonation if state)
        hydrogens += len(hydrogens_of(topology).names)
    return {
        **({"hydrogens": hydrogens} if plan.finish.get("hydrogens") else {}),
        "ph": plan.finish["ph"],
        "protonation": dict(sorted(states.items())),
    }


def places(targets: Targets, plan: Plan) -> dict[str, Any]:
    return {
        "output": [str(file) for file in targets.files],
        "topology": str(targets.topology or targets.files[0]),
        "rows": _rows_in_words(targets, plan),
        "record": str(targets.record),
    }


def _rows_in_words(targets: Targets, plan: Plan) -> str:
    if plan.rows_per_frame == 1:
        return "one structure a frame, in the order of the input"
    if targets.output.suffix == STORE:
        return "all members of a frame, then the next frame (observables source_frame, member)"
    return "one file a member, frames in the order of the input"


def _by_frame(quarantined: list[dict[str, Any]], members: int) -> list[dict[str, Any]]:
    """One entry for each bad frame, or each bad member where the others of its frame are good."""
    frames: dict[int, list[dict[str, Any]]] = {}
    for item in quarantined:
        frames.setdefault(item["frame"], []).append(item)
    found: list[dict[str, Any]] = []
    for frame, items in sorted(frames.items()):
        if len(items) == members:
            found.append({"frame": frame, "reason": items[0]["reason"]})
        else:
            found += [
                {"frame": frame, "member": item["member"], "reason": item["reason"]}
                for item in items
            ]
    return found
