"""From a frame store to trajectory files that other programs read."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import mdtraj
import numpy as np

from hpcbackmap.protein.hydrogens import HYDROGENS, hydrogens_of
from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, InputError, Interrupted
from hpcbackmap.runtime.files import free_output, is_url, only_writer, scratch_of, write_whole
from hpcbackmap.runtime.mpi import Comm, LocalComm, on_first_rank, raise_together
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.store.store import FrameStore
from hpcbackmap.store.system import StoredSystem
from hpcbackmap.trajectories.companion import names_same_atoms, topology_beside
from hpcbackmap.trajectories.concatenate import join_files
from hpcbackmap.trajectories.units import frame_bytes
from hpcbackmap.trajectories.writer import TrajectoryWriter, require_suffix

__all__ = ["export"]

log = logging.getLogger(__name__)

PIECE_BYTES = 8e6
"""Coordinates that are held at a time."""
ERROR = "expected_error"
"""Of residues, for the column of B-factors."""
FRAME = "{frame}"
"""In the name of the output: a file for every frame."""


def export(
    store: FrameStore,
    resolution: str,
    output: str | Path,
    system: str | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    comm: Comm | None = None,
    force: bool = False,
) -> int:
    """Write frames ``start``, ``start + stride``, … before ``stop`` as XTC, DCD or multi-model PDB.

    output: with ``{frame}`` in its name, one file for every frame, called by its number. system: may be left
    out if the store holds one. comm: ranks that share the work (collective). Beside XTC and DCD stands
    ``NAME_top.pdb``; beside members of a backmapping ``NAME.xtc.rows.csv``, which says of each frame of the
    file which member of which input frame it is. force: write over files that are there. Heavy atoms and
    C-alpha have their names; beads are called CG in residues BEA, one each. Periodic boxes that the store keeps
    are written.
    Frames without numbers (quarantined ones) are left out, and told.
    Returns the number of frames written. A file appears under its name when it is whole.
    Raises ConfigError for an unknown suffix, a URL or no system, InputError for frames that do not exist,
    OutputError if the file cannot be written, Interrupted after a stop signal (nothing is left but files of
    single frames that are whole).
    """
    if is_url(output):
        raise ConfigError(f"{output}: export writes files; give a path, and copy what it writes")
    output, comm = Path(output), comm or LocalComm()
    require_suffix(output)
    if system is None and len(store.systems) > 1:
        raise ConfigError(
            f"{store.path}: holds {', '.join(store.systems)}; say which system to export"
        )
    stored = store.system(store.systems[0] if system is None else system)
    stored.n_particles(resolution)
    if resolution == HYDROGENS:
        raise ConfigError(f"{output}: hydrogens come with their heavy atoms; export fg")
    stop = stored.n_frames if stop is None else stop
    if not 0 <= start < stop <= stored.n_frames:
        raise InputError(
            f"{store.path}: system {stored.name} has frames 0 to {stored.n_frames - 1}, "
            f"not {start} to {stop - 1}"
        )
    frames = range(start, stop, stride)
    mine = frames[comm.rank * len(frames) // comm.size : (comm.rank + 1) * len(frames) // comm.size]
    shared = comm.size > 1 and FRAME not in output.name
    part = scratch_of(output) if shared else output
    with ExitStack() as held:
        if shared:
            on_first_rank(comm, lambda: _claim(output, force, held))
        beside = None if FRAME in output.name else topology_beside(output)
        if beside and not force:
            topology = _topology(stored, resolution)
            on_first_rank(comm, lambda: names_same_atoms(beside, topology))
        wrote = _written(stored, resolution, output, part, mine, comm, force)
        written = sum(len(each.rows) for each in wrote)
        if written and FRAME not in output.name:
            on_first_rank(comm, lambda: _beside(stored, resolution, output, beside, wrote))
    if not written:
        raise InputError(f"{output}: none of the frames has coordinates that are numbers")
    if comm.rank == 0 and written < len(frames):
        log.warning(
            "%s: %d frame(s) without numbers were left out", store.path, len(frames) - written
        )
    return written


def _claim(output: Path, force: bool, held: ExitStack) -> None:
    """Be the one run that writes ``output``, which is free."""
    held.enter_context(only_writer(output))
    free_output(output, force)


class Piece(NamedTuple):
    """What a writer appends: positions [n, particles, 3], numbers [n], times [n], cells [n, 3, 3] or None,
    expected error of each residue [n, R] or None; nm, ps.
    """

    positions: np.ndarray
    numbers: np.ndarray
    times: np.ndarray
    cells: np.ndarray | None
    errors: np.ndarray | None

    def only(self, number: int) -> "Piece":
        """One of its frames."""
        row = slice(number, number + 1)
        cells = None if self.cells is None else self.cells[row]
        errors = None if self.errors is None else self.errors[row]
        return Piece(self.positions[row], self.numbers[row], self.times[row], cells, errors)


class Wrote(NamedTuple):
    """What a rank has written: frames of the store in order, int64, and the first of them."""

    rows: np.ndarray
    first: Piece | None


def _written(
    stored: StoredSystem,
    resolution: str,
    output: Path,
    part: Path,
    mine: range,
    comm: Comm,
    force: bool,
) -> list[Wrote]:
    """What each rank has written."""
    wrote, error = Wrote(np.zeros(0, dtype=np.int64), None), None
    try:
        with StopSignals() as signals:
            pieces = _pieces(stored, resolution, mine, signals)
            if FRAME in output.name:
                wrote = _write_single(stored, resolution, output, pieces, force)
            else:
                wrote = _write(stored, resolution, part, pieces, force)
    except HpcbackmapError as failure:
        error = failure
    try:
        raise_together(comm, error)
        if part != output:
            parts = comm.gather(part if len(wrote.rows) else None)
            on_first_rank(comm, lambda: _join(parts, output))
    finally:
        if part != output:
            part.unlink(missing_ok=True)
    found: list[Wrote] = comm.bcast(comm.gather(wrote))
    return found


def _write(
    stored: StoredSystem, resolution: str, part: Path, pieces: Iterator[Piece], force: bool
) -> Wrote:
    """Pieces into one file, if there are any."""
    first, rows = next(pieces, None), []
    if first is None:
        return Wrote(np.zeros(0, dtype=np.int64), None)
    with TrajectoryWriter(part, _topology(stored, resolution), force) as file:
        for piece in chain([first], pieces):
            file.append(*piece)
            rows.append(piece.numbers)
    return Wrote(np.concatenate(rows), first.only(0))


def _write_single(
    stored: StoredSystem, resolution: str, output: Path, pieces: Iterator[Piece], force: bool
) -> Wrote:
    topology, rows = _topology(stored, resolution), [np.zeros(0, dtype=np.int64)]
    width = len(str(stored.n_frames - 1))
    for piece in pieces:
        for i, number in enumerate(piece.numbers):
            name = output.name.replace(FRAME, f"{number:0{width}d}")
            with TrajectoryWriter(output.with_name(name), topology, force) as file:
                file.append(*piece.only(i))
        rows.append(piece.numbers)
    return Wrote(np.concatenate(rows), None)


def _beside(
    stored: StoredSystem, resolution: str, output: Path, topology: Path | None, wrote: list[Wrote]
) -> None:
    """The topology of the file, and of members of a backmapping which is which."""
    if topology is not None:
        first = next(each.first for each in wrote if each.first is not None)
        with TrajectoryWriter(topology, _topology(stored, resolution), force=True) as file:
            numbers, times = np.zeros(1, dtype=np.int64), np.zeros(1)
            file.append(first.positions, numbers, times, first.cells)
    if "member" not in stored.observables:
        return
    rows = np.concatenate([each.rows for each in wrote])
    frames, members = (
        stored.read_observable(name, 0, stored.n_frames)[rows]
        for name in ("source_frame", "member")
    )
    if members.any() or len(rows) < stored.n_frames:
        lines = [
            f"{k},{frame},{member}"
            for k, (frame, member) in enumerate(zip(frames, members, strict=True))
        ]
        table = output.with_name(f"{output.name}.rows.csv")
        write_whole(table, "\n".join(["frame,source_frame,member", *lines, ""]))
        log.info("%s: rows are input frames, of each all members: see %s", output, table)


def _pieces(
    stored: StoredSystem, resolution: str, frames: range, signals: StopSignals
) -> Iterator["Piece"]:
    """The frames that have numbers, a few at a time."""
    kept = "time" in stored.observables
    confident = resolution == "fg" and ERROR in stored.residue_values
    size = max(1, int(PIECE_BYTES / frame_bytes(stored.n_particles(resolution))))
    for first in range(0, len(frames), size):
        if signals.received:
            raise Interrupted(
                f"export: stopped by {signals.received}; the same command starts over"
            )
        part = frames[first : first + size]
        positions, numbers = stored.read_at(resolution, part), np.array(part)
        if _has_hydrogens(stored, resolution):
            atoms = hydrogens_of(stored.ladder.topology)
            positions = atoms.joined(positions, stored.read_at(HYDROGENS, part))
        times = numbers
        if kept:
            times = stored.read_observable("time", part[0], part[-1] + 1)[:: part.step]
        good = np.isfinite(positions).all(axis=(1, 2))
        if good.any():
            errors = None
            if confident:
                errors = stored.read_of_residues(ERROR, part[0], part[-1] + 1)[:: part.step][good]
            cells = stored.read_cells_at(part)
            cells = None if cells is None else cells[good]
            yield Piece(positions[good], numbers[good], times[good], cells, errors)


def _join(parts: list[Path | None], output: Path) -> None:
    written = [part for part in parts if part is not None]
    if written:
        join_files(written, output)


def _has_hydrogens(stored: StoredSystem, resolution: str) -> bool:
    return resolution == "fg" and bool(stored.ladder.topology.protonation)


def _topology(stored: StoredSystem, resolution: str) -> mdtraj.Topology:
    if _has_hydrogens(stored, resolution):
        return hydrogens_of(stored.ladder.topology).to_mdtraj()
    if resolution in ("fg", "ca"):
        return stored.ladder.topology.to_mdtraj(resolution)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for bead in range(stored.n_particles(resolution)):
        residue = topology.add_residue("BEA", chain, resSeq=bead + 1)
        topology.add_atom("CG", mdtraj.element.carbon, residue)
    return topology
