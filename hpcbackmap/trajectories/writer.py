"""Trajectory files that other programs read, whole or not at all: XTC, DCD, multi-model PDB."""

import logging
from contextlib import suppress
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.utils import box_vectors_to_lengths_and_angles

from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import flush, writing
from hpcbackmap.trajectories.reader import describe_file

__all__ = ["TrajectoryWriter", "require_suffix"]

log = logging.getLogger(__name__)

FULL_DISK = "cannot be written whole; is the disk full?"
SUFFIXES = (".xtc", ".dcd", ".pdb")


def require_suffix(output: Path) -> None:
    """Raises ConfigError if the name says no format that can be written."""
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"{output}: can write {', '.join(SUFFIXES)}, not {output.suffix or 'no suffix'}"
        )


class TrajectoryWriter:
    """Appends frames to a file that gets its name when the ``with`` block ends well.

    XTC and DCD keep the unit cell of every frame, PDB that of the first.

    Raises ConfigError for an unknown suffix, OutputError if the file cannot be written.
    """

    def __init__(self, output: str | Path, topology: mdtraj.Topology):
        self.output, self.topology = Path(output), topology
        require_suffix(self.output)
        self._partial = self.output.with_name(f".{self.output.stem}.partial{self.output.suffix}")
        self._frames = 0
        self._finished = False
        self._with_cells: bool | None = None

    def __enter__(self) -> "TrajectoryWriter":
        with writing(self.output):
            self._partial.touch()
            self._file = mdtraj.open(str(self._partial), "w")
        return self

    def append(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        times: np.ndarray,
        cells: np.ndarray | None = None,
    ) -> None:
        """Frames [n, atoms, 3] (nm) with their numbers [n], times [n] (ps) and unit cells [n, 3, 3] (nm)."""
        with writing(self.output):
            try:
                self._append(positions, numbers, times, cells)
            except (RuntimeError, TypeError) as error:  # what mdtraj raises if it cannot write on
                raise OSError(f"{FULL_DISK} ({error})") from None
        self._frames += len(positions)

    def _append(self, positions, numbers, times, cells) -> None:
        if self._with_cells is None:
            self._with_cells = cells is not None and bool(np.any(cells))
            self._tell_of_times(times)
        if cells is None:
            cells = np.zeros((len(positions), 3, 3))
        if self.output.suffix == ".xtc":
            self._file.write(
                positions,
                time=times.astype(np.float32),
                step=numbers.astype(np.int32),
                box=cells.astype(np.float32),
            )
            return
        lengths, angles = _lengths_and_angles(cells) if self._with_cells else (None, None)
        if self.output.suffix == ".dcd":
            self._file.write(positions * 10, lengths, angles)  # Angstrom
            return
        for i, (frame, number) in enumerate(zip(positions, numbers, strict=True)):
            cell = (lengths[i].tolist(), angles[i].tolist()) if self._with_cells else (None, None)
            self._file.write(frame * 10, self.topology, number + 1, *cell)

    def _tell_of_times(self, times: np.ndarray) -> None:
        """DCD and PDB files come back with the times 0, 1, 2, …"""
        if self.output.suffix != ".xtc" and not np.array_equal(times, np.arange(len(times))):
            log.info("%s: %s keeps no times of frames, .xtc does", self.output, self.output.suffix)

    def finish(self) -> None:
        """Close the file and make sure that it is whole; nothing more can be appended."""
        with writing(self.output):
            self._file.close()
            self._count()
            flush(self._partial)
        self._finished = True

    def __exit__(self, kind, error, trace) -> None:
        try:
            with writing(self.output):
                if kind is not None:
                    self._file.close()
                    return
                if not self._finished:
                    self.finish()
                self._partial.replace(self.output)
        finally:
            with suppress(OSError):
                self._partial.unlink()

    def _count(self) -> None:
        """mdtraj's writers do not always notice that they failed."""
        if self.output.suffix != ".pdb":
            try:
                found, _ = describe_file(str(self._partial), self.topology)
            except InputError as error:
                raise OSError(f"{FULL_DISK} ({error})") from None
            if found != self._frames:
                raise OSError(f"{FULL_DISK} ({found} of {self._frames} frames are there)")


def _lengths_and_angles(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges [n, 3] (Angstrom) and angles [n, 3] (degrees) of unit cells [n, 3, 3] (nm); no cell: 0 and 90."""
    with np.errstate(invalid="ignore", divide="ignore"):
        *lengths, alpha, beta, gamma = box_vectors_to_lengths_and_angles(*cells.transpose(1, 0, 2))
    angles = np.nan_to_num(np.stack([alpha, beta, gamma], axis=1), nan=90.0)
    return 10 * np.stack(lengths, axis=1), angles
