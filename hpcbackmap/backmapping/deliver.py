"""From finished shards to the files that a user asked for: in order, by all ranks, whole or not at all.

Shapes: n frames, M members, A atoms; positions nm.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcbackmap.backmapping.confidence import expected_errors
from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.request import Targets
from hpcbackmap.backmapping.source import FileSystem
from hpcbackmap.backmapping.workspace import ShardFiles
from hpcbackmap.finishing.naming import named_topology
from hpcbackmap.protein.hydrogens import HYDROGENS, hydrogens_of
from hpcbackmap.runtime.errors import HpcbackmapError, Stopped
from hpcbackmap.runtime.mpi import Comm, on_first_rank, raise_together
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.trajectories.concatenate import join_files
from hpcbackmap.trajectories.units import frame_bytes

if TYPE_CHECKING:
    import mdtraj

__all__ = ["Pieces", "deliver"]

log = logging.getLogger(__name__)

PIECE_BYTES = 8e6
"""Coordinates that are held at a time."""
MEMBERS_AT_ONCE = 32
"""Members whose files are open together."""
WITH_ERRORS = (".pdb", ".cif")
"""Formats with a column for the expected error of each residue."""


class Piece(NamedTuple):
    """Frames of some members: positions [n, M, A, 3], numbers [n], times [n] (ps), cells [n, 3, 3] or None.

    errors: expected error of each residue, nm [n, M, R], where it was asked for.
    """

    positions: np.ndarray
    numbers: np.ndarray
    times: np.ndarray
    cells: np.ndarray | None
    errors: np.ndarray | None = None

    def of(self, rows: "np.ndarray | slice", member: int) -> tuple[Any, ...]:
        """What a writer appends of some frames of one member."""
        return (
            self.positions[rows, member],
            self.numbers[rows],
            self.times[rows],
            None if self.cells is None else self.cells[rows],
            None if self.errors is None else self.errors[rows, member],
        )


class Pieces:
    """The structures of a plan in order of the input's frames, a few at a time."""

    def __init__(self, plan: Plan, made: ShardFiles, system: FileSystem, names: str = "pdb"):
        """names: of residues and atoms, where there are hydrogens (`finishing.naming.NAMES`)."""
        self.plan, self.made, self.system = plan, made, system
        self.written = plan.written_ladder(system.name, system.ladder).topology
        self.names, self.others = names, system.others

    def topology(self) -> "mdtraj.Topology":
        """Of the atoms that `read` gives."""
        if self.written.protonation:
            protein = named_topology(hydrogens_of(self.written), self.names)
        else:
            protein = self.written.to_mdtraj()
        return protein if self.others is None else self.others.beside(protein)

    def read(
        self, start: int, stop: int, members: range, with_errors: bool = False
    ) -> Iterator[Piece]:
        """Chosen frames ``start`` to ``stop``, counted in the plan."""
        plan, rows = self.plan, self.plan.rows_per_frame
        kept = 0 if self.others is None else len(self.others.rows)
        atoms = max((self.written.n_atoms + kept) * rows, self.system.chosen.max(initial=0) + 1)
        size = max(1, int(PIECE_BYTES / frame_bytes(int(atoms))))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            numbers = plan.local_frames(Shard(self.made.name, 0, first, last))
            read = self.system.frames(numbers)
            heavy = self.made.read("fg", first * rows, last * rows)
            positions = self._with_hydrogens(heavy, first * rows, last * rows)
            positions = positions.reshape(last - first, rows, -1, 3)
            errors = None
            if with_errors:
                chosen = heavy.reshape(last - first, rows, -1, 3)[:, members]
                errors = self._errors(chosen)
            positions = positions[:, members]
            piece = Piece(positions, np.array(numbers), read.times, read.cells, errors)
            yield piece if self.others is None else self._with_others(piece, read.positions)

    def _with_others(self, piece: Piece, frames: np.ndarray) -> Piece:
        """With what stands beside the protein in the same frames [n, P, 3] of the file."""
        assert self.others is not None
        positions, errors = piece.positions, piece.errors
        good = np.isfinite(positions)
        sums = np.where(good, positions, 0).sum((1, 2), dtype=np.float64)
        kept = self.others.positions(frames, piece.cells, sums / np.maximum(good.sum((1, 2)), 1))
        kept = np.repeat(kept[:, None], positions.shape[1], axis=1)
        if errors is not None:
            none = np.zeros((*errors.shape[:2], self.others.n_residues), errors.dtype)
            errors = np.concatenate([errors, none], axis=2)
        return piece._replace(positions=np.concatenate([positions, kept], axis=2), errors=errors)

    def _with_hydrogens(self, heavy: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Structures ``start`` to ``stop`` as they are written [n, A, 3]."""
        if not self.written.protonation:
            return heavy
        return hydrogens_of(self.written).joined(heavy, self.made.read(HYDROGENS, start, stop))

    def _errors(self, heavy: np.ndarray) -> np.ndarray | None:
        """Expected error of each residue of structures [n, M, A, 3]: nm [n, M, R]."""
        found = expected_errors(self.plan, self.system, heavy.reshape(-1, *heavy.shape[2:]))
        return None if found is None else found.reshape(*heavy.shape[:2], -1)

    def trajectories(self) -> list["mdtraj.Trajectory"]:
        """One of each member; structures without numbers are left out."""
        import mdtraj

        members, topology = range(self.plan.rows_per_frame), self.topology()
        read = [*self.read(0, self.plan.total_frames, members)]
        found = []
        for member in members:
            good = [np.isfinite(piece.positions[:, member]).all(axis=(1, 2)) for piece in read]
            pairs = [*zip(read, good, strict=True)]
            one = mdtraj.Trajectory(
                np.concatenate([piece.positions[rows, member] for piece, rows in pairs]),
                topology,
                time=np.concatenate([piece.times[rows] for piece, rows in pairs]),
            )
            cells = [piece.cells[rows] for piece, rows in pairs if piece.cells is not None]
            if len(cells) == len(pairs):
                one.unitcell_vectors = np.concatenate(cells)
            found.append(one)
        return found


def deliver(pieces: Pieces, targets: Targets, comm: Comm, signals: StopSignals) -> None:
    """Write all members to their files, and a topology beside formats that have none; collective.

    Structures without numbers are left out. Raises OutputError, Stopped after a stop signal (the same command
    delivers anew).
    """
    for begin in range(0, len(targets.files), MEMBERS_AT_ONCE):
        members = range(begin, min(begin + MEMBERS_AT_ONCE, len(targets.files)))
        _deliver_some(pieces, targets, members, comm, signals)
    on_first_rank(comm, lambda: _write_topology(pieces, targets))


def _deliver_some(
    pieces: Pieces, targets: Targets, members: range, comm: Comm, signals: StopSignals
) -> None:
    files = [targets.files[member] for member in members]
    total, parts = pieces.plan.total_frames, []
    error: HpcbackmapError | None = None
    try:
        parts = [_part(file, comm.rank) if comm.size > 1 else file for file in files]
        start, stop = comm.rank * total // comm.size, (comm.rank + 1) * total // comm.size
        _write(pieces, parts, members, start, stop, signals)
    except HpcbackmapError as failure:
        error = failure
    try:
        raise_together(comm, error)
        if comm.size > 1:
            on_first_rank(comm, lambda: _join(files, comm.size))
    finally:
        if comm.size > 1:
            for part in parts:
                part.unlink(missing_ok=True)


def _write(
    pieces: Pieces, parts: list[Path], members: range, start: int, stop: int, signals: StopSignals
) -> None:
    """One file for each member; none for a member without a structure here."""
    from hpcbackmap.trajectories.writer import TrajectoryWriter

    topology = pieces.topology()
    writers: dict[int, TrajectoryWriter] = {}
    with ExitStack() as stack:
        for piece in pieces.read(start, stop, members, parts[0].suffix in WITH_ERRORS):
            if signals.received:
                raise Stopped(
                    f"{parts[0]}: stopped by {signals.received} while the output was written; the same command "
                    "continues"
                )
            good = np.isfinite(piece.positions).all(axis=(2, 3))
            for k, part in enumerate(parts):
                rows = np.flatnonzero(good[:, k])
                if not len(rows):
                    continue
                if k not in writers:
                    writers[k] = stack.enter_context(TrajectoryWriter(part, topology, force=True))
                writers[k].append(*piece.of(rows, k))


def _write_topology(pieces: Pieces, targets: Targets) -> None:
    """The first structure there is, as PDB without a time, unless one of these atoms is there."""
    from hpcbackmap.trajectories.writer import TrajectoryWriter

    if targets.topology is None:
        return
    every = range(len(targets.files))
    for piece in pieces.read(0, pieces.plan.total_frames, every, with_errors=True):
        good = np.argwhere(np.isfinite(piece.positions).all(axis=(2, 3)))
        if len(good):
            frame, member = good[0]
            topology = pieces.topology()
            positions, numbers, times, *more = piece.of(slice(frame, frame + 1), member)
            with TrajectoryWriter(targets.topology, topology, force=True) as file:
                file.append(positions, numbers, np.zeros_like(times), *more)
            return


def _part(output: Path, rank: int) -> Path:
    return output.with_name(f".{output.stem}.part{rank}{output.suffix}")


def _join(outputs: list[Path], ranks: int) -> None:
    for output in outputs:
        parts = [part for rank in range(ranks) if (part := _part(output, rank)).exists()]
        if parts:
            join_files(parts, output)
