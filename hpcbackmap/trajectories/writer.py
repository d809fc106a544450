"""Trajectory files that other programs read, whole or not at all: XTC, DCD, PDB, mmCIF, GRO."""

import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import mdtraj
import numpy as np

from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError
from hpcbackmap.runtime.files import (
    ascii_name,
    commit,
    free_output,
    only_writer,
    scratch_of,
    writing,
)
from hpcbackmap.trajectories.cells import lengths_and_angles, usable_cells
from hpcbackmap.trajectories.reader import describe_file
from hpcbackmap.trajectories.structure_text import structure_text

__all__ = ["TEXT", "TrajectoryWriter", "require_suffix"]

log = logging.getLogger(__name__)

FULL_DISK = "cannot be written whole; is the disk full?"
TEXT = (".pdb", ".cif", ".gro")
SUFFIXES = (".xtc", ".dcd", *TEXT)
REMARK = 80
"""Bytes of a remark in a DCD file."""
_said: set[str] = set()
"""What was said about formats: once is enough for many files."""


def require_suffix(output: Path) -> None:
    """Raises ConfigError if the name says no format that can be written."""
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"{output}: can write {', '.join(SUFFIXES)}, not {output.suffix or 'no suffix'}"
        )


class TrajectoryWriter:
    """Appends frames to a file that gets its name when the ``with`` block ends well.

    XTC, DCD and GRO keep the unit cell of every frame, PDB and mmCIF that of the first. Chains, numbers and
    insertion codes are those of ``topology``; what a format cannot hold is said. force: write over a file of
    that name.

    Raises ConfigError for an unknown suffix, ResourceError while another run writes the file, OutputError if it
    is there or cannot be written.
    """

    def __init__(self, output: str | Path, topology: mdtraj.Topology, force: bool = False):
        self.output, self.topology, self._force = Path(output), topology, force
        require_suffix(self.output)
        self._partial = scratch_of(self.output)
        self._frames = 0
        self._finished = False
        self._with_cells: bool | None = None
        self._file: Any = None
        self._text = structure_text(self.output.suffix, topology) if self.is_text else None

    @property
    def is_text(self) -> bool:
        return self.output.suffix in TEXT

    def __enter__(self) -> "TrajectoryWriter":
        with ExitStack() as held, writing(self.output):
            held.enter_context(only_writer(self.output))
            free_output(self.output, self._force)
            self._partial.touch()
            if self.is_text:
                self._file = self._partial.open("wb")
            else:
                self._file = mdtraj.open(ascii_name(self._partial), "w")
            self._held = held.pop_all()
        for loss in self._text.losses if self._text else ():
            if loss not in _said:
                _said.add(loss)
                log.warning("%s: %s", self.output, loss)
        return self

    def append(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        times: np.ndarray,
        cells: np.ndarray | None = None,
        errors: np.ndarray | None = None,
    ) -> None:
        """Frames [n, atoms, 3] (nm) with their numbers [n], times [n] (ps) and unit cells [n, 3, 3] (nm).

        errors: expected error of each residue [n, residues] (nm), for the B-factor column of PDB and mmCIF.
        """
        with writing(self.output):
            try:
                self._append(positions, numbers, times, cells, errors)
            except OutputError as error:
                raise OutputError(f"{self.output}: {error}") from None
            except (RuntimeError, TypeError) as error:  # what mdtraj raises if it cannot write on
                raise OSError(f"{FULL_DISK} ({error})") from None
        self._frames += len(positions)

    def _append(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        times: np.ndarray,
        cells: np.ndarray | None,
        errors: np.ndarray | None,
    ) -> None:
        first = self._with_cells is None
        if first:
            self._with_cells = cells is not None and bool(np.any(cells))
            self._tell_of_times(times)
        if cells is None:
            cells = np.zeros((len(positions), 3, 3))
        cells = np.where(usable_cells(cells)[:, None, None], cells, 0)
        if self._text:
            if first:
                self._text.begin(self._file, cells[0] if cells[0].any() else None)
            of_frames = [None] * len(positions) if errors is None else errors
            rows = zip(positions, numbers, times, cells, of_frames, strict=True)
            for frame, number, time, cell, error in rows:
                self._text.frame(self._file, frame, int(number), float(time), cell, error)
            return
        if self.output.suffix == ".xtc":
            self._file.write(
                positions,
                time=times.astype(np.float32),
                step=numbers.astype(np.int32),
                box=cells.astype(np.float32),
            )
            return
        lengths, angles = lengths_and_angles(cells) if self._with_cells else (None, None)
        if lengths is not None:
            lengths = 10 * lengths
        self._file.write(positions * 10, lengths, angles)  # Angstrom

    def _tell_of_times(self, times: np.ndarray) -> None:
        """DCD, PDB and mmCIF files come back with the times 0, 1, 2, …"""
        if self.output.suffix not in (".xtc", ".gro") and not np.array_equal(
            times, np.arange(len(times))
        ):
            log.info("%s: %s keeps no times of frames, .xtc does", self.output, self.output.suffix)

    def finish(self) -> None:
        """Close the file and make sure that it is whole; nothing more can be appended."""
        with writing(self.output):
            if self._text:
                self._text.end(self._file)
            self._file.close()
            self._count()
            if self.output.suffix == ".dcd":
                _without_date(self._partial)
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with writing(self.output):
                if kind is not None:
                    self._file.close()
                    return
                if not self._finished:
                    self.finish()
                commit(self._partial, self.output)
        finally:
            with suppress(OSError):
                self._partial.unlink()
            self._held.close()

    def _count(self) -> None:
        """mdtraj's writers do not always notice that they failed."""
        if not self.is_text:
            try:
                found, _ = describe_file(str(self._partial), self.topology)
            except InputError as error:
                raise OSError(f"{FULL_DISK} ({error})") from None
            if found != self._frames:
                raise OSError(f"{FULL_DISK} ({found} of {self._frames} frames are there)")


def _without_date(path: Path) -> None:
    """Blank the remark of a DCD file that says when it was written, so that equal runs give equal files."""
    with path.open("r+b") as file:
        start = file.read(1024).find(b"REMARKS Created")
        if start >= 0:
            file.seek(start)
            file.write(b"REMARKS".ljust(REMARK))
