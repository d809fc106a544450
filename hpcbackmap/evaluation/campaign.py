"""Judge a campaign's held-out frames, beside the trivial answers, into ``metrics.json``."""

import logging
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.baselines import bead_centre, nearest_training_frame
from hpcbackmap.evaluation.bootstrap import Totals, block_numbers, summarise
from hpcbackmap.evaluation.files import evaluate_files
from hpcbackmap.evaluation.intermediate import RUNG_METRICS, judge_rung
from hpcbackmap.evaluation.pairing import Pairs, pair_stores, read_members, require_held_out, thin
from hpcbackmap.evaluation.reading import MOST_FRAMES, read_frames
from hpcbackmap.evaluation.record import JUDGED_BY, LABELS, Figure, five_figures, write_record
from hpcbackmap.metrics.judge import judge, judge_alone
from hpcbackmap.metrics.registry import METRICS
from hpcbackmap.runtime.errors import HpcbackmapError, InputError
from hpcbackmap.runtime.mpi import Comm, raise_together
from hpcbackmap.runtime.versions import versions
from hpcbackmap.store.store import FrameStore, open_store
from hpcbackmap.trajectories.units import frame_bytes

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


class Sources(NamedTuple):
    """What an evaluation reads.

    truth: store of the true frames. own: store with the training frames. ranges: its split.
    """

    truth: FrameStore
    generated: FrameStore
    own: FrameStore
    ranges: dict[str, Any]
    pairs: list[Pairs]
    held_out: str

    def nearest(self, system: str, beads: np.ndarray) -> np.ndarray | None:
        """The answer of the nearest training frames, None if this system has none (it is new)."""
        training = [item for item in self.ranges["train"] if item.system == system]
        return nearest_training_frame(self.own, training, system, beads) if training else None


class Piece(NamedTuple):
    """Frames of one system that are read and judged together; ``blocks`` [F]: see `blocks`."""

    pairs: Pairs
    blocks: np.ndarray


class Judged:
    """What was judged. tables: totals by resolution and row. given_up: frames left out."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Totals]] = {}
        self.given_up = 0

    def totals(self, resolution: str, row: str) -> Totals:
        metrics = METRICS if resolution == "fg" else RUNG_METRICS
        return self.tables.setdefault(resolution, {}).setdefault(row, Totals(metrics))

    def sums(self) -> tuple[int, dict[str, Any]]:
        """Numbers alone, for another rank to `take`."""
        tables = {
            resolution: {row: totals.blocks for row, totals in rows.items()}
            for resolution, rows in self.tables.items()
        }
        return self.given_up, tables

    def take(self, sums: tuple[int, dict[str, Any]]) -> None:
        given_up, tables = sums
        self.given_up += given_up
        for resolution, rows in tables.items():
            for row, blocks in rows.items():
                self.totals(resolution, row).take(blocks)


def evaluate_campaign(campaign: Campaign, comm: Comm) -> dict[str, Any]:
    """Judge the backmapped store of a campaign and write ``metrics.json`` in its working folder.

    Collective: ranks share the frames; every rank returns the whole record, rank 0 writes it. Memory
    is bounded by `BLOCK_BYTES` and the blocks of the bootstrap, whatever the number of frames, and the
    numbers do not depend on the number of ranks. Frames that the backmapping gave up (coordinates
    that are not numbers) are left out and counted.
    Raises InputError if stores are missing or do not belong together, or frames are not held out.
    """
    sources = open_sources(campaign)
    shares = _shares(sources)
    n_blocks = int(shares[-1][-1].blocks[-1]) + 1
    judged, record, error = Judged(), None, None
    try:
        for number in range(comm.rank, len(shares), comm.size):
            for piece in shares[number]:
                _judge_piece(sources, piece, judged)
            log.info("judged share %d of %d", number + 1, len(shares))
    except HpcbackmapError as failure:
        error = failure
    raise_together(comm, error)
    gathered = comm.gather(judged.sums())
    if comm.rank == 0:
        try:
            whole = Judged()
            for part in gathered:
                whole.take(part)
            record = _record(campaign, sources, whole, n_blocks)
            write_record(record, campaign.path("metrics.json"))
        except HpcbackmapError as failure:
            error = failure
    raise_together(comm, error)
    found: dict[str, Any] = comm.bcast(record)
    return found


def open_sources(campaign: Campaign) -> Sources:
    """Open the stores of a campaign and pair true with generated frames."""
    from hpcbackmap.store.split import split_frames

    own = open_store(campaign.store_place())
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


def _shares(sources: Sources) -> list[list[Piece]]:
    """The frames in shares for the ranks: no block of the bootstrap is in two of them.

    So each total is added up by one rank in one order, and does not depend on their number.
    """
    systems = [sources.truth.system(item.system) for item in sources.pairs]
    ranges = [[(start, stop) for _, start, stop in system.sources] for system in systems]
    numbers = block_numbers([item.frames for item in sources.pairs], ranges)
    shares: list[list[Piece]] = []
    for item, system, blocks in zip(sources.pairs, systems, numbers, strict=True):
        n_atoms = system.ladder.topology.n_atoms
        size = max(
            1, min(MOST_FRAMES, int(BLOCK_BYTES / frame_bytes(n_atoms * item.rows.shape[1])))
        )
        for start, stop in _cuts(blocks, size):
            part = slice(start, stop)
            pairs = Pairs(item.system, item.frames[part], item.rows[part])
            piece = Piece(pairs, blocks[part])
            if shares and shares[-1][-1].blocks[-1] == piece.blocks[0]:
                shares[-1].append(piece)
            else:
                shares.append([piece])
    return shares


def _cuts(blocks: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Ranges of at most ``size`` frames: as many whole blocks as fit, or parts of a longer one."""
    starts = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), len(blocks)]
    cuts, begin = [], 0
    for start, stop in pairwise(starts):
        if stop - begin > size:
            if start > begin:
                cuts.append((begin, start))
            begin = start
            while stop - begin > size:
                cuts.append((begin, begin + size))
                begin += size
    return [*cuts, (begin, len(blocks))]


def _judge_piece(sources: Sources, piece: Piece, judged: Judged) -> None:
    """Heavy atoms, and every intermediate resolution that the backmapped store holds."""
    pairs = piece.pairs
    ladder = sources.truth.system(pairs.system).ladder
    members = read_members(sources.generated, pairs, "fg")
    whole = np.isfinite(members).all((1, 2, 3))
    judged.given_up += int((~whole).sum())
    if not whole.any():
        return
    pairs, members = Pairs(pairs.system, pairs.frames[whole], pairs.rows[whole]), members[whole]
    blocks = piece.blocks[whole]
    truth = read_frames(sources.truth, pairs.system, "fg", pairs.frames)
    beads = read_frames(sources.truth, pairs.system, ladder.resolutions[-1], pairs.frames)
    answers = {"model": members, "bead_centre": bead_centre(ladder, beads)[:, None]}
    nearest = sources.nearest(pairs.system, beads)
    if nearest is not None:
        answers["nearest_training_frame"] = nearest[:, None]
    for name, answer in answers.items():
        rows = judge(ladder.topology, truth, answer, ladder, beads)
        judged.totals("fg", name).add(rows, pairs.system, blocks)
    own = judge_alone(ladder.topology, truth)
    judged.totals("fg", "truth").add(own, pairs.system, blocks)
    for resolution in ladder.resolutions[1:-1]:
        if resolution not in sources.generated.resolutions:
            continue
        level = {name: ladder.coarsen(answer)[resolution] for name, answer in answers.items()}
        level["model"] = read_members(sources.generated, pairs, resolution)
        true_level = ladder.coarsen(truth)[resolution]
        for name, answer in level.items():
            rows = judge_rung(ladder, resolution, true_level, answer, beads)
            judged.totals(resolution, name).add(rows, pairs.system, blocks)


def _record(campaign: Campaign, sources: Sources, judged: Judged, n_blocks: int) -> dict[str, Any]:
    if not judged.tables:
        raise InputError(f"{sources.generated.path}: no frame has coordinates that are numbers")
    plan = sources.generated.attributes.get("provenance", {}).get("plan", {})
    answer = "mode" if plan.get("mode", campaign.backmap.mode) else "prior samples"
    kinds = {"model": answer, "truth": "truth"}

    def table(rows: dict[str, Totals]) -> list[dict[str, Any]]:
        return [
            {
                "row": name,
                "label": LABELS[name],
                "what": f"{kinds.get(name, 'baseline')}, {sources.held_out}",
                "metrics": summarise(
                    rows[name], n_blocks, campaign.evaluate.bootstrap, campaign.seed
                ),
            }
            for name in LABELS
            if name in rows
        ]

    resolutions = [name for name in campaign.resolutions()[1:] if name in judged.tables]
    return {
        "campaign": campaign.name,
        "campaign_digest": campaign.digest(),
        "ladder": campaign.resolutions(),
        "what": f"{answer}, {sources.held_out}",
        "atoms": "all heavy atoms, first and last residue included, matched by name",
        "split": campaign.split.model_dump(),
        "n_frames": {item.system: len(item.frames) for item in sources.pairs},
        "n_frames_given_up": judged.given_up,
        "n_training_frames": sum(item.stop - item.start for item in sources.ranges["train"]),
        "members": int(sources.pairs[0].rows.shape[1]),
        "seeds": {
            "backmap": plan.get("seed", campaign.backmap.seed),
            "bootstrap": campaign.seed,
        },
        "bootstrap": campaign.evaluate.bootstrap,
        "bootstrap_blocks": n_blocks,
        "stores": {"truth": sources.truth.digest, "generated": sources.generated.digest},
        "versions": versions(*JUDGED_BY),
        "rows": table(judged.tables["fg"]),
        "rungs": [{"resolution": name, "rows": table(judged.tables[name])} for name in resolutions],
    }
