"""Judge a campaign's held-out frames, beside the trivial answers, into ``metrics.json``."""

import logging
from typing import NamedTuple

import numpy as np

from hpcbackmap.config import Campaign
from hpcbackmap.errors import HpcbackmapError, InputError
from hpcbackmap.evaluation.baselines import bead_centre, nearest_training_frame
from hpcbackmap.evaluation.files import evaluate_files
from hpcbackmap.evaluation.judge import METRICS, judge
from hpcbackmap.evaluation.pairing import Pairs, pair_stores, read_members, require_held_out, thin
from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.evaluation.record import LABELS, Figure, five_figures, versions, write_record
from hpcbackmap.evaluation.rungs import RUNG_METRICS, judge_rung
from hpcbackmap.evaluation.summary import summarise
from hpcbackmap.mpi import raise_together

__all__ = [
    "Figure",
    "Sources",
    "evaluate_campaign",
    "evaluate_files",
    "five_figures",
    "open_sources",
]

log = logging.getLogger(__name__)

BLOCK_BYTES = 32e6
"""Generated coordinates in a block of frames; temporaries take a few times as much."""

Rows = dict[str, dict[str, np.ndarray]]
"""Row name (``model``, ``nearest_training_frame``, …) to metric rows."""


class Sources(NamedTuple):
    """What an evaluation reads.

    truth: store of the true frames. own: store with the training frames. ranges: its split.
    """

    truth: object
    generated: object
    own: object
    ranges: dict
    pairs: list[Pairs]
    held_out: str

    def nearest(self, system: str, beads: np.ndarray) -> np.ndarray | None:
        """The answer of the nearest training frames, None if this system has none (it is new)."""
        training = [item for item in self.ranges["train"] if item.system == system]
        return nearest_training_frame(self.own, training, system, beads) if training else None


class Judged(NamedTuple):
    """What one block contributes. rungs: by intermediate resolution. given_up: frames left out."""

    rows: Rows
    rungs: dict[str, Rows]
    given_up: int


def evaluate_campaign(campaign: Campaign, comm) -> dict:
    """Judge the backmapped store of a campaign and write ``metrics.json`` in its working folder.

    Collective: ranks share the frames; every rank returns the whole record, rank 0 writes it. Memory
    is bounded by `BLOCK_BYTES`, and the numbers do not depend on the number of ranks. Frames that
    the backmapping gave up (coordinates that are not numbers) are left out and counted.
    Raises InputError if stores are missing or do not belong together, or frames are not held out.
    """
    sources = open_sources(campaign)
    blocks = _blocks(sources)
    judged, record, error = [], None, None
    try:
        for number in range(comm.rank, len(blocks), comm.size):
            judged.append((number, _judge_block(sources, blocks[number])))
            log.info("judged block %d of %d", number + 1, len(blocks))
    except HpcbackmapError as failure:
        error = failure
    raise_together(comm, error)
    gathered = comm.gather(judged)
    if comm.rank == 0:
        try:
            parts = sorted((part for share in gathered for part in share), key=lambda part: part[0])
            record = _record(campaign, sources, [part for _, part in parts])
            write_record(record, campaign.path("metrics.json"))
        except HpcbackmapError as failure:
            error = failure
    raise_together(comm, error)
    return comm.bcast(record)


def open_sources(campaign: Campaign) -> Sources:
    """Open the stores of a campaign and pair true with generated frames."""
    from hpcbackmap.frames.split import split_frames
    from hpcbackmap.frames.store import open_store

    own = open_store(campaign.path(campaign.store.path))
    generated = open_store(campaign.path(campaign.backmap.output))
    ranges = split_frames(own, campaign.split)
    truth, held_out = own, "held-out frames"
    if campaign.backmap.input:
        truth, held_out = open_store(campaign.backmap.input), "frames of another store"
        if truth.digest == own.digest:
            truth, held_out = own, "held-out frames"
    if "fg" not in truth.resolutions:
        raise InputError(
            f"{truth.path}: holds no heavy atoms (fg), so there is no truth to judge by"
        )
    pairs = pair_stores(truth, generated)
    if truth is own:
        require_held_out(pairs, ranges["test"], generated.path)
    return Sources(
        truth, generated, own, ranges, thin(pairs, campaign.evaluate.max_frames), held_out
    )


def _blocks(sources: Sources) -> list[Pairs]:
    """The pairs in pieces that are read and judged together."""
    blocks = []
    for system, frames, rows in sources.pairs:
        n_atoms = sources.truth.system(system).ladder.topology.n_atoms
        size = max(1, int(BLOCK_BYTES / (12 * n_atoms * rows.shape[1])))
        for start in range(0, len(frames), size):
            part = slice(start, start + size)
            blocks.append(Pairs(system, frames[part], rows[part]))
    return blocks


def _judge_block(sources: Sources, block: Pairs) -> Judged:
    """Heavy atoms, and every intermediate resolution that the backmapped store holds."""
    ladder = sources.truth.system(block.system).ladder
    members = read_members(sources.generated, block, "fg")
    whole = np.isfinite(members).all((1, 2, 3))
    block, members = Pairs(block.system, block.frames[whole], block.rows[whole]), members[whole]
    if not whole.any():
        return Judged({}, {}, len(whole))
    truth = read_frames(sources.truth, block.system, "fg", block.frames)
    beads = read_frames(sources.truth, block.system, ladder.resolutions[-1], block.frames)
    answers = {"model": members, "bead_centre": bead_centre(ladder, beads)[:, None]}
    nearest = sources.nearest(block.system, beads)
    if nearest is not None:
        answers["nearest_training_frame"] = nearest[:, None]
    rows = {
        name: judge(ladder.topology, truth, answer, ladder, beads)
        for name, answer in answers.items()
    }
    rows["truth"] = _own_values(judge(ladder.topology, truth, truth[:, None]))
    rungs = {}
    for resolution in ladder.resolutions[1:-1]:
        if resolution not in sources.generated.resolutions:
            continue
        level = {name: ladder.coarsen(answer)[resolution] for name, answer in answers.items()}
        level["model"] = read_members(sources.generated, block, resolution)
        true_level = ladder.coarsen(truth)[resolution]
        rungs[resolution] = {
            name: judge_rung(ladder, resolution, true_level, answer, beads)
            for name, answer in level.items()
        }
    return Judged(rows, rungs, int((~whole).sum()))


def _own_values(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        item.name: rows[item.name] for item in METRICS if not item.compares and item.name in rows
    }


def _record(campaign: Campaign, sources: Sources, judged: list[Judged]) -> dict:
    parts = [part for part in judged if part.rows]
    if not parts:
        raise InputError(f"{sources.generated.path}: no frame has coordinates that are numbers")
    plan = sources.generated.attributes.get("provenance", {}).get("plan", {})
    answer = "mode" if plan.get("mode", campaign.backmap.mode) else "prior samples"

    kinds = {"model": answer, "truth": "truth"}

    def table(metrics, rows: list[Rows]) -> list[dict]:
        present = [name for name in LABELS if any(name in part for part in rows)]
        return [
            {
                "row": name,
                "label": LABELS[name],
                "what": f"{kinds.get(name, 'baseline')}, {sources.held_out}",
                "metrics": summarise(
                    metrics, _joined(rows, name), campaign.evaluate.bootstrap, campaign.seed
                ),
            }
            for name in present
        ]

    resolutions = [name for name in campaign.resolutions() if any(name in p.rungs for p in parts)]
    return {
        "campaign": campaign.name,
        "campaign_digest": campaign.digest(),
        "ladder": campaign.resolutions(),
        "what": f"{answer}, {sources.held_out}",
        "atoms": "all heavy atoms, first and last residue included, matched by name",
        "split": campaign.split.model_dump(),
        "n_frames": {item.system: len(item.frames) for item in sources.pairs},
        "n_frames_given_up": sum(part.given_up for part in judged),
        "n_training_frames": sum(item.stop - item.start for item in sources.ranges["train"]),
        "members": int(sources.pairs[0].rows.shape[1]),
        "seeds": {
            "backmap": plan.get("seed", campaign.backmap.seed),
            "bootstrap": campaign.seed,
        },
        "bootstrap": campaign.evaluate.bootstrap,
        "stores": {"truth": sources.truth.digest, "generated": sources.generated.digest},
        "versions": versions(),
        "rows": table(METRICS, [part.rows for part in parts]),
        "rungs": [
            {
                "resolution": name,
                "rows": table(RUNG_METRICS, [p.rungs[name] for p in parts if name in p.rungs]),
            }
            for name in resolutions
        ],
    }


def _joined(parts: list[Rows], row: str) -> dict[str, np.ndarray]:
    """Rows of all blocks, one below the other."""
    blocks = [part[row] for part in parts if row in part]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
