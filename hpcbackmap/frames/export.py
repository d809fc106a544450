"""From a frame store to trajectory files that other programs read."""

from contextlib import suppress
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.frames.shards import flush, writing
from hpcbackmap.frames.store import FrameStore
from hpcbackmap.frames.system import StoredSystem
from hpcbackmap.frames.trajectory import describe_file

__all__ = ["export"]

PIECE_BYTES = 8e6
"""Coordinates that are held at a time."""
FULL_DISK = "cannot be written whole; is the disk full?"
SUFFIXES = (".xtc", ".dcd", ".pdb")


def export(
    store: FrameStore,
    resolution: str,
    output: str | Path,
    system: str | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
) -> int:
    """Write frames ``start``, ``start + stride``, … before ``stop`` as XTC, DCD or multi-model PDB.

    system: may be left out if the store holds one. A PDB of one frame is a topology for the other two.
    Heavy atoms and C-alpha have their names; beads are called CG in residues BEA, one each.
    Returns the number of frames written. The file appears under its name when it is whole.
    Raises ConfigError for an unknown suffix or no system, InputError for frames that do not exist,
    OutputError if the file cannot be written.
    """
    output = Path(output)
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"{output}: can write {', '.join(SUFFIXES)}, not {output.suffix or 'no suffix'}"
        )
    if system is None and len(store.systems) > 1:
        raise ConfigError(
            f"{store.path}: holds {', '.join(store.systems)}; say which system to export"
        )
    stored = store.system(store.systems[0] if system is None else system)
    stored.n_particles(resolution)
    stop = stored.n_frames if stop is None else stop
    if not 0 <= start < stop <= stored.n_frames:
        raise InputError(
            f"{store.path}: system {stored.name} has frames 0 to {stored.n_frames - 1}, "
            f"not {start} to {stop - 1}"
        )
    partial = output.with_name(f".{output.stem}.partial{output.suffix}")
    try:
        with writing(output):
            written = _write(stored, resolution, partial, range(start, stop, stride))
            flush(partial)
            partial.replace(output)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    return written


def _write(stored: StoredSystem, resolution: str, path: Path, frames: range) -> int:
    topology = _topology(stored, resolution)
    times = "time" in stored.observables
    size = max(1, int(PIECE_BYTES / (12 * stored.n_particles(resolution)))) * frames.step
    path.touch()
    with mdtraj.open(str(path), "w") as file:
        for start in range(frames.start, frames.stop, size):
            stop = min(frames.stop, start + size)
            positions = stored.read(resolution, start, stop)[:: frames.step]
            numbers = np.arange(start, stop)[:: frames.step]
            time = stored.read_observable("time", start, stop)[:: frames.step] if times else numbers
            _append(file, path.suffix, topology, positions, numbers, time)
    if path.suffix != ".pdb":
        _require_frames(path, topology, len(frames))
    return len(frames)


def _append(file, suffix: str, topology, positions, numbers, time) -> None:
    try:
        if suffix == ".xtc":
            box = np.zeros((len(positions), 3, 3), dtype=np.float32)
            file.write(
                positions, time=time.astype(np.float32), step=numbers.astype(np.int32), box=box
            )
        elif suffix == ".dcd":
            file.write(positions * 10)  # Angstrom
        else:
            for frame, number in zip(positions, numbers, strict=True):
                file.write(frame * 10, topology, modelIndex=number + 1)  # Angstrom
    except (RuntimeError, TypeError) as error:  # what mdtraj raises if it cannot write on
        raise OSError(f"{FULL_DISK} ({error})") from None


def _topology(stored: StoredSystem, resolution: str) -> mdtraj.Topology:
    if resolution in ("fg", "ca"):
        return stored.ladder.topology.to_mdtraj(resolution)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for bead in range(stored.n_particles(resolution)):
        residue = topology.add_residue("BEA", chain, resSeq=bead + 1)
        topology.add_atom("CG", mdtraj.element.carbon, residue)
    return topology


def _require_frames(path: Path, topology: mdtraj.Topology, expected: int) -> None:
    """mdtraj's writers do not always notice that they failed."""
    try:
        found, _ = describe_file(str(path), topology)
    except InputError as error:
        raise OSError(f"{FULL_DISK} ({error})") from None
    if found != expected:
        raise OSError(f"{FULL_DISK} ({found} of {expected} frames are there)")
