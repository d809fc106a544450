"""Reading ``--reference``: one structure of the protein, of any file and representation that is read."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hpcbackmap.backmapping.reading import chosen_particles, require_known_residues
from hpcbackmap.backmapping.source import file_source
from hpcbackmap.backmapping.trace_rules import handedness_in_words
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import require_file
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.trace.guided import Guided
from hpcbackmap.stages.trace.model import Trace
from hpcbackmap.stages.trace.reference import Reference

__all__ = ["guided", "read_reference"]


def read_reference(path: str) -> Reference:
    """The C-alpha atoms of the first frame of a file. Raises InputError where it has no usable trace."""
    from hpcbackmap.trajectories.frames import open_files
    from hpcbackmap.trajectories.read_particles import read_particles
    from hpcbackmap.trajectories.reader import holds_topology

    require_file(path)
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    if not holds_topology(path):
        raise InputError(f"{path}: names no residues; give the reference as PDB, mmCIF or GRO")
    particles = read_particles(path, None)
    chosen = chosen_particles(particles, None, [])
    require_known_residues(particles.subset(chosen))
    reader: Any = open_files([path], particles, None)
    system = file_source(reader, particles, path, "auto", "skip", {}, chosen).only
    read = system.coarse([0])
    if read.unusable:
        raise InputError(f"{path}: no reference: {read.unusable[0]}")
    topology, calpha = system.ladder.topology, read.positions[0].astype(np.float64)
    if words := handedness_in_words(topology, read.positions):
        raise InputError(f"{path}: no reference: {words[0]}")
    digest = hashlib.sha256(calpha.tobytes())
    digest.update(repr((topology.sequence, topology.chain_index)).encode())
    return Reference(path, digest.hexdigest(), topology, calpha)


def guided(stages: list[Stage[Any]], reference: Reference) -> list[Stage[Any]]:
    """The stages, with the one that makes C-alpha traces of beads guided by ``reference``.

    Raises InputError where there is none.
    """
    found = [Guided(stage, reference) if isinstance(stage, Trace) else stage for stage in stages]
    if not any(isinstance(stage, Guided) for stage in found):
        raise InputError(
            f"{reference.path}: a reference helps where a trace stage makes C-alpha atoms of beads of several "
            "residues; here there is none: leave it out"
        )
    return found
