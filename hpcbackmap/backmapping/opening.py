"""A source of what the files of a user hold, read as the request says; what was decided is said in the log."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from hpcbackmap.backmapping.bead_source import bead_source, is_ultra_coarse
from hpcbackmap.backmapping.disulphides import with_disulphides
from hpcbackmap.backmapping.others import others_of
from hpcbackmap.backmapping.reading import (
    chosen_particles,
    require_known_residues,
    with_sequence,
)
from hpcbackmap.backmapping.request import Request
from hpcbackmap.backmapping.source import FileSource, file_source
from hpcbackmap.backmapping.summary import left_out_of
from hpcbackmap.protein.sequences import sequence_option
from hpcbackmap.runtime.errors import ConfigError, InputError

__all__ = ["open_source"]

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import mdtraj

    from hpcbackmap.trajectories.frames import FrameReader
    from hpcbackmap.trajectories.particles import Particles

IN_MEMORY = "trajectory"
"""How messages call a trajectory that is no file."""
SAMPLE = 5
"""Frames of it that decide which neighbours are bonded."""


def open_source(inputs: "list[str] | mdtraj.Trajectory", request: Request) -> FileSource:
    """What files hold, or a trajectory of mdtraj, read as the request says; said in the log.

    Raises InputError and ConfigError, one line each.
    """
    from hpcbackmap.trajectories.formats import require_format
    from hpcbackmap.trajectories.frames import FramesInMemory, open_files
    from hpcbackmap.trajectories.read_particles import (
        particles_from_mdtraj,
        particles_of_chains,
        read_particles,
    )
    from hpcbackmap.trajectories.reader import holds_topology

    if not isinstance(inputs, list):
        cells, few = inputs.unitcell_vectors, slice(0, SAMPLE)
        particles = particles_from_mdtraj(
            inputs.topology,
            IN_MEMORY,
            inputs.xyz[few],
            None if cells is None else cells[few],
            request.molecule,
        )
        return _source(FramesInMemory(inputs), particles, IN_MEMORY, request)
    path = inputs[0]
    require_format(path)
    if request.top is None and not holds_topology(path):
        if request.sequence is None:
            raise InputError(
                f"{path}: no atom names are read from this format; give a file of the molecule that has them "
                "(PDB, mmCIF, GRO, PSF, …) with --top, or the sequence of a model of one bead per residue with "
                "--sequence"
            )
        chains = sequence_option(request.sequence)
        particles = particles_of_chains(path, chains, request.molecule, request.unit)
    else:
        particles = read_particles(path, request.top, request.molecule, request.unit)
    return _source(open_files(inputs, particles, request.unit), particles, path, request)


def _source(
    reader: "FrameReader", particles: "Particles", path: str, request: Request
) -> FileSource:
    """A source of the chosen particles of ``reader``; what was decided in reading them is said."""
    chosen = chosen_particles(particles, request.select, list(request.chains))
    options = {
        "select": request.select, "chains": list(request.chains), "sequence": request.sequence,
        "molecule": request.molecule, "unit": request.unit,
    }  # fmt: skip
    if is_ultra_coarse(request, particles.subset(chosen)):
        source = bead_source(reader, particles, path, request, options, chosen)
    elif request.bead_center != "ca":
        raise ConfigError(
            f"--bead-center {request.bead_center}: of beads of several residues; say so with --segments or "
            "--representation ucg"
        )
    else:
        if request.sequence is not None:
            particles = with_sequence(particles, request.sequence)
        require_known_residues(particles.subset(chosen))
        source = file_source(
            reader, particles, path, request.representation, request.on_bad_frame, options, chosen
        )
    source = with_disulphides(source, request.disulphides, path)
    _tell_reading(source, particles, path)
    others = others_of(particles, chosen, source.only.reading, request.keep_others, path)
    if others is not None:
        source = replace(source, only=replace(source.only, others=others))
        words = ", ".join(f"{count} of {name}" for name, count in others.counts.items())
        log.info("%s: passed through as they are, particles: %s", path, words or "none")
    _tell_left_out(source, particles.n_atoms - len(chosen), path, request.strict)
    return source


def _tell_reading(source: FileSource, particles: "Particles", path: str) -> None:
    """What reading decided, and where chains break."""
    topology = source.only.ladder.topology
    for word in [*particles.words, *source.only.reading.words]:
        log.info("%s", word if word.startswith(path) else f"{path}: {word}")
    for residue in range(1, topology.n_residues):
        same = topology.chain_index[residue] == topology.chain_index[residue - 1]
        if same and not topology.bonded[residue]:
            log.warning("%s: chain break before %s", path, topology.label(residue))


def _tell_left_out(source: FileSource, not_selected: int, path: str, strict: bool) -> None:
    """How much there is, and what no frame has of it, which ``strict`` refuses. Raises InputError."""
    topology, left_out = source.only.ladder.topology, left_out_of(source.only)
    if not_selected:
        left_out["not selected"] = not_selected
    what = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    log.info(
        "%s: %d residues, %d chain(s), %d frames; left out of every frame: %s",
        path, topology.n_residues, len(topology.chain_ids), source.only.n_frames, what or "nothing",
    )  # fmt: skip
    if left_out and strict:
        raise InputError(f"{path}: --strict: {what} would be left out")
