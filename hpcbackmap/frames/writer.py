"""Trajectory files that other programs read, whole or not at all: XTC, DCD, multi-model PDB."""

from contextlib import suppress
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.frames.shards import flush, writing
from hpcbackmap.frames.trajectory import describe_file

__all__ = ["TrajectoryWriter", "require_suffix"]

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

    Raises ConfigError for an unknown suffix, OutputError if the file cannot be written.
    """

    def __init__(self, output: str | Path, topology: mdtraj.Topology):
        self.output, self.topology = Path(output), topology
        require_suffix(self.output)
        self._partial = self.output.with_name(f".{self.output.stem}.partial{self.output.suffix}")
        self._frames = 0

    def __enter__(self) -> "TrajectoryWriter":
        with writing(self.output):
            self._partial.touch()
            self._file = mdtraj.open(str(self._partial), "w")
        return self

    def append(self, positions: np.ndarray, numbers: np.ndarray, times: np.ndarray) -> None:
        """Frames [n, atoms, 3] (nm) with their numbers [n] and times [n] (ps)."""
        with writing(self.output):
            try:
                self._append(positions, numbers, times)
            except (RuntimeError, TypeError) as error:  # what mdtraj raises if it cannot write on
                raise OSError(f"{FULL_DISK} ({error})") from None
        self._frames += len(positions)

    def _append(self, positions: np.ndarray, numbers: np.ndarray, times: np.ndarray) -> None:
        if self.output.suffix == ".xtc":
            box = np.zeros((len(positions), 3, 3), dtype=np.float32)
            self._file.write(
                positions, time=times.astype(np.float32), step=numbers.astype(np.int32), box=box
            )
        elif self.output.suffix == ".dcd":
            self._file.write(positions * 10)  # Angstrom
        else:
            for frame, number in zip(positions, numbers, strict=True):
                self._file.write(frame * 10, self.topology, modelIndex=number + 1)  # Angstrom

    def __exit__(self, kind, error, trace) -> None:
        try:
            with writing(self.output):
                self._file.close()
                if kind is None:
                    self._publish()
        finally:
            with suppress(OSError):
                self._partial.unlink()

    def _publish(self) -> None:
        """mdtraj's writers do not always notice that they failed: count, then rename."""
        if self.output.suffix != ".pdb":
            try:
                found, _ = describe_file(str(self._partial), self.topology)
            except InputError as error:
                raise OSError(f"{FULL_DISK} ({error})") from None
            if found != self._frames:
                raise OSError(f"{FULL_DISK} ({found} of {self._frames} frames are there)")
        flush(self._partial)
        self._partial.replace(self.output)
