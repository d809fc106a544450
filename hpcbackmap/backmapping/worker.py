"""One rank's work: take a shard, run the chain over its frames in batches, write it, record it."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcbackmap.backmapping.census import SEARCHED, count_structures
from hpcbackmap.backmapping.chain import Chains, Descent
from hpcbackmap.backmapping.confidence import EXPECTED_ERROR, expected_errors
from hpcbackmap.backmapping.output import open_output
from hpcbackmap.backmapping.pipeline import RemoteChains
from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.records import Records
from hpcbackmap.backmapping.source import Coarse, Source, read_coarse
from hpcbackmap.backmapping.structure_rules import impossible
from hpcbackmap.finishing.disulphides import bonded_sulphurs, close_disulphides
from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.relax import relax
from hpcbackmap.metrics.beads import bead_error
from hpcbackmap.protein.hydrogens import HYDROGENS
from hpcbackmap.protein.topology import Topology
from hpcbackmap.runtime.mpi import Counter
from hpcbackmap.runtime.stopping import StopSignals

__all__ = ["Worker"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Draws of a structure before it is given up."""

Spent = defaultdict[str, float]
"""Seconds by what they were spent on."""


class Told(NamedTuple):
    """What is told of the structures of a shard: those without numbers; energies of those that were relaxed
    (kJ/mol a residue, before and after), and those that could not be; frames made without the reference.
    """

    quarantined: list[dict[str, Any]]
    energies: list[list[float]]
    unrelaxed: list[dict[str, Any]]
    set_aside: list[int]


class _StopAsked(Exception):
    """A stop signal came in the middle of a shard."""


class Worker:
    """tell(rows, quarantined, seconds): called after every batch with what is new."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        output: Path,
        chains: Chains | RemoteChains,
        stop: StopSignals,
        journal: Path,
        tell: Callable[[int, int, float], None],
    ):
        self.plan, self.source, self.chains = plan, source, chains
        self.stop, self.tell = stop, tell
        self.store = open_output(output)
        self.records = Records(plan, output)
        self.journal = journal

    def run(self, todo: list[Shard], counter: Counter, deadline: float | None) -> None:
        """Shards until none is left, the next would not end before ``deadline``, or a stop signal comes.

        A shard that is interrupted is not recorded. A signal to one rank stops all.
        deadline: of `time.monotonic`.
        """
        longest, waited = 0.0, time.perf_counter()
        while self.stop.received is None and (number := counter.next()) < len(todo):
            spent: Spent = defaultdict(float, counter=time.perf_counter() - waited)
            begun = time.monotonic()
            if deadline is not None and begun + 1.2 * longest > deadline:
                break
            try:
                self._shard(todo[number], spent)
            except _StopAsked:
                break
            longest = max(longest, time.monotonic() - begun)
            waited = time.perf_counter()
        if self.stop.received is not None:
            counter.next(len(todo))  # no shard is left for the other ranks, which so stop, too

    def _shard(self, shard: Shard, spent: Spent) -> None:
        plan = self.plan
        local = plan.local_frames(shard)
        with _Timed(spent, "read"):
            coarse = read_coarse(self.source.system(shard.system), plan.start, local)
        first = self.source.system(shard.system).first_frame
        frames = [first + i for i in local]
        parts = [
            slice(start, start + plan.batch_frames)
            for start in range(0, len(local), plan.batch_frames)
        ]
        descents = (
            Descent(
                coarse.positions[part],
                frames[part],
                plan.members,
                plan.seed,
                given=coarse.given and coarse.given.frames(part),
                coherence=plan.coherence_of(shard.system),
            )
            for part in parts
        )
        chain, told = self.chains[shard.system], Told([], [], [], [])
        blocks: dict[str, list[np.ndarray]] = {name: [] for name in plan.resolutions}
        begun, known = time.perf_counter(), 0
        for part, (descent, drawn) in zip(parts, chain.run_all(descents), strict=True):
            if self.stop.received:
                raise _StopAsked
            reasons = {
                place - part.start: reason
                for place, reason in coarse.unusable.items()
                if part.start <= place < part.stop
            }
            levels = self._complete(shard.system, descent, drawn, reasons, told)
            aside = np.flatnonzero(descent.set_aside).tolist()
            told.set_aside.extend(descent.frames[place] for place in aside if place not in reasons)
            for name in plan.resolutions:
                blocks[name].append(levels[name])
            now = time.perf_counter()
            rows = len(descent.frames) * plan.rows_per_frame
            self.tell(rows, len(told.quarantined) - known, now - begun)
            spent["compute"] += now - begun
            begun, known = now, len(told.quarantined)
        self.write(shard, blocks, frames, told, spent, coarse)

    def write(
        self,
        shard: Shard,
        blocks: dict[str, list[np.ndarray]],
        frames: list[int],
        told: Told,
        spent: Spent,
        coarse: Coarse,
    ) -> None:
        """Batches of a shard, which are used up, as one whole; then its record and a line in the journal."""
        plan, rows = self.plan, self.plan.rows_per_frame
        arrays = {name: np.concatenate(blocks.pop(name)) for name in self.plan.resolutions}
        observables = {
            "source_frame": np.repeat(np.array(frames, dtype=np.int64), rows),
            "member": np.tile(np.arange(rows, dtype=np.int64), len(frames)),
        }
        stored = self.store.system(shard.system)
        if set(stored.observables) - set(observables):
            from hpcbackmap.store.layout import cell_columns  # Zarr: of stores alone

            observables |= {
                name: values.repeat(rows)
                for name, values in cell_columns(coarse.cells, len(frames)).items()
            }
        if told.set_aside and plan.source is None:
            log.warning(
                "%s: %d of frames %d to %d are of another fold than the reference: made without it",
                shard.system, len(told.set_aside), frames[0], frames[-1],
            )  # fmt: skip
        facts, errors = None, None
        if "fg" in arrays:
            with _Timed(spent, "count"):
                if EXPECTED_ERROR in stored.residue_values:
                    known = self.source.system(shard.system)
                    errors = expected_errors(plan, known, arrays["fg"])
                facts = self._facts(shard.system, arrays["fg"], coarse)
                if plan.reference:
                    facts["reference_set_aside"] = len(told.set_aside)
        of_residues = {} if errors is None else {EXPECTED_ERROR: errors.astype(np.float16)}
        with _Timed(spent, "write"):
            stored.write_shard(shard.number, arrays, observables, of_residues)
        with _Timed(spent, "verify"):
            relaxation = {"energies": told.energies, "kept": told.unrelaxed}
            self.records.publish(
                self.store, shard, told.quarantined, facts, relaxation if plan.relaxes else None
            )
        entry = {
            "shard": f"{shard.system}/{shard.number}",
            "rows": len(frames) * rows,
            "quarantined": len(told.quarantined),
            "seconds": {name: round(value, 6) for name, value in spent.items()},
        }
        with self.journal.open("a") as journal:
            journal.write(json.dumps(entry) + "\n")

    def _facts(self, system: str, made: np.ndarray, coarse: Coarse) -> dict[str, float]:
        """What a user is told about structures [rows, A, 3] and the frames that they came from."""
        ladder, moved = self.source.system(system).ladder, coarse.moved
        counts: dict[str, float] = dict(count_structures(ladder.topology, made))
        good = np.isfinite(made).all(axis=(1, 2))
        if self.plan.source is not None and self.plan.start != "ca" and good.any():
            beads = np.repeat(coarse.positions, self.plan.rows_per_frame, axis=0)[good]
            counts["most_bead_error"] = float(bead_error(ladder, made[good], beads).max())
        if good.any():
            counts |= self._confidence(system, made[good])
        if ladder.topology.disulphides and good.any():
            counts["open_disulphides"] = int((~bonded_sulphurs(ladder.topology, made[good])).sum())
        if moved.any():
            counts["closed"] = int((moved > 0).sum())
            counts["moved"] = float(moved.sum())
            counts["most_moved"] = float(moved.max())
        return counts

    def _confidence(self, system: str, made: np.ndarray) -> dict[str, float]:
        """Sum and number of expected errors of residues, of some structures [S, A, 3]."""
        chosen = made[:: -(-len(made) // SEARCHED)]
        errors = expected_errors(self.plan, self.source.system(system), chosen)
        if errors is None:
            return {}
        return {"expected_error": float(errors.sum()), "residues_expected": errors.size}

    def _complete(
        self,
        system: str,
        descent: Descent,
        drawn: list[dict[str, np.ndarray]],
        unusable: dict[int, str],
        told: Told,
    ) -> dict[str, np.ndarray]:
        """All members of a batch of frames, rows ordered (frame, member): [F * members, N, 3].

        Structures that are not finite, or of files `impossible`, are drawn again with other noise, the whole
        batch at a time, so that its shape stays; what stays so is quarantined. unusable: frames of the batch,
        and why.
        """
        plan = self.plan
        failed = self._redraw(system, descent, drawn, unusable)
        reasons: dict[tuple[int, int], tuple[str | None, str]] = {
            (frame, member): (None, reason)
            for frame, reason in unusable.items()
            for member in range(plan.rows_per_frame)
        }
        for place, (stage, what) in failed.items():
            draws = 1 if plan.mode else ATTEMPTS
            reasons[place] = (stage, f"output of {stage} {what} in all of {draws} draw(s)")
        for (frame, member), (culprit, reason) in sorted(reasons.items()):
            told.quarantined.append(
                {
                    "system": system,
                    "frame": int(descent.frames[frame]),
                    "member": member,
                    "stage": culprit,
                    "reason": reason,
                }
            )
        levels = {}
        for name in plan.resolutions:
            if name == HYDROGENS:
                continue
            stacked = np.stack([levels_[name] for levels_ in drawn], axis=1)
            for frame, member in reasons:
                stacked[frame, member] = np.nan
            levels[name] = stacked.reshape(-1, *stacked.shape[2:])
        self._finish(system, levels, descent.frames, told)
        return levels

    def _redraw(
        self,
        system: str,
        descent: Descent,
        drawn: list[dict[str, np.ndarray]],
        unusable: dict[int, str],
    ) -> dict[tuple[int, int], tuple[str, str]]:
        """Replace bad structures of ``drawn``; of those that stay so, the stage and what is wrong."""
        chain = self.chains[system]
        failed = {
            place: failure
            for place, failure in self._failures(system, drawn).items()
            if place[0] not in unusable
        }
        for attempt in range(1, 1 if self.plan.mode else ATTEMPTS):
            if not failed:
                break
            redrawn = chain.run(descent.again(attempt))
            for frame, member in failed.keys() - self._failures(system, redrawn).keys():
                for name, positions in drawn[member].items():
                    drawn[member][name] = positions.copy()
                    drawn[member][name][frame] = redrawn[member][name][frame]
                del failed[frame, member]
        return failed

    def _failures(
        self, system: str, drawn: list[dict[str, Any]]
    ) -> dict[tuple[int, int], tuple[str, str]]:
        """The coarsest stage that failed and how, by (place in the batch, place among members)."""
        stages = self.chains[system].stages
        failed = {
            place: (stage, "is not finite")
            for place, stage in _first_failure(drawn, stages).items()
        }
        if self.plan.source is None:  # of a campaign's own stages
            return failed
        topology = self.source.system(system).ladder.topology
        for member, levels in enumerate(drawn):
            for frame in np.flatnonzero(impossible(topology, levels["fg"])).tolist():
                what = "has D-residues or broken peptide bonds (are the input's beads on a line?)"
                failed.setdefault((frame, member), (stages[-1].name, what))
        return failed

    def _finish(
        self, system: str, levels: dict[str, np.ndarray], frames: list[int], told: Told
    ) -> None:
        """What happens to whole structures after the chain: disulphides, hydrogens, then minimisation."""
        ladder = self.source.system(system).ladder
        if ladder.topology.disulphides and "fg" in levels:
            levels["fg"] = close_disulphides(ladder.topology, levels["fg"])
        if not self.plan.protonation:
            return
        topology = self.plan.protonated_ladder(system, ladder).topology
        hydrogens = add_hydrogens(topology, levels["fg"])
        if self.plan.relaxes:
            self._relax(system, topology, levels["fg"], hydrogens, frames, told)
        if HYDROGENS in self.plan.resolutions:
            levels[HYDROGENS] = hydrogens

    def _relax(
        self,
        system: str,
        topology: Topology,
        heavy: np.ndarray,
        hydrogens: np.ndarray,
        frames: list[int],
        told: Told,
    ) -> None:
        """Minimise structures [F * members, …] in place, one after the other."""
        for row in np.flatnonzero(np.isfinite(heavy).all(axis=(1, 2))).tolist():
            if self.stop.received:
                raise _StopAsked
            done = relax(topology, heavy[[row]], hydrogens[[row]])
            if not done.kept:
                heavy[row], hydrogens[row] = done.heavy[0], done.hydrogens[0]
                energies = done.energies[0] / topology.n_residues
                told.energies.append(energies.round(3).tolist())
                continue
            frame, member = divmod(row, self.plan.rows_per_frame)
            told.unrelaxed.append(
                {
                    "system": system,
                    "frame": int(frames[frame]),
                    "member": member,
                    "reason": done.kept[0],
                }
            )


def _first_failure(
    drawn: list[dict[str, Any]], stages: Sequence[Any]
) -> dict[tuple[int, int], str]:
    """The coarsest stage whose positions are not finite, by (place in the batch, place among members)."""
    failed: dict[tuple[int, int], str] = {}
    for stage in stages:
        for member, levels in enumerate(drawn):
            bad = ~np.isfinite(levels[stage.fine]).all(axis=(1, 2))
            for frame in np.flatnonzero(bad).tolist():
                failed.setdefault((frame, member), stage.name)
    return failed


class _Timed:
    """Adds the seconds of a block to ``spent[name]``."""

    def __init__(self, spent: Spent, name: str):
        self.spent, self.name = spent, name

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        self.spent[self.name] += time.perf_counter() - self.begun
