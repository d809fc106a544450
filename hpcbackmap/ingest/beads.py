"""Files that hold beads: which particle of the file is which bead of the ladder.

B beads, R residues; positions in nm.
"""

import itertools
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np

from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.ingest.selection import select_particles
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residue_kinds import modified_parent
from hpcbackmap.protein.residues import RESIDUES, standard_residue_name
from hpcbackmap.protein.sequences import read_sequences
from hpcbackmap.protein.topology import Topology, topology_from_sequence
from hpcbackmap.resolution.build import build_ladder, resolution_name
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.bead_links import bead_residues, span
from hpcbackmap.trajectories.read_particles import load_topology
from hpcbackmap.trajectories.reader import describe_file

__all__ = ["bead_table", "match_beads", "resolution_of"]


def match_beads(
    config: SystemConfig, specs: list[str], file_topology: mdtraj.Topology, topology_file: str
) -> tuple[Ladder, np.ndarray]:
    """Ladder of the molecule, down from ``config.resolution`` at least, and the file particle of each bead
    [B].

    specs: the campaign's ladder. Raises InputError if the number of particles or the names of their residues
    are not those of the ladder's beads, or particles are of another kind; ConfigError for keys that
    contradict each other.
    """
    index = select_particles(file_topology, config)
    particles = [file_topology.atom(int(i)) for i in index]
    resolution = resolution_of(config)
    spec = next(spec for spec in specs if resolution_name(spec) == resolution)
    _refuse_backbones(config, spec, particles, topology_file)
    ladder = _ladder(config, specs, particles, topology_file)
    wanted = ladder.n_particles(resolution)
    if len(index) != wanted:
        raise InputError(
            f"{topology_file}: {len(index)} particles, {config.resolution} of system {config.name} has "
            f"{wanted} beads; choose them with `selection` or list them in `beads`"
        )
    _require_residues(config, ladder, particles, topology_file)
    return ladder, index


def bead_table(ladder: Ladder, resolution: str, particles: list[Any]) -> dict[str, str]:
    """Of each bead, the particle of the file that stands for it, and its residues."""
    table = {}
    groups = bead_residues(ladder, resolution)
    for bead, (particle, residues) in enumerate(zip(particles, groups, strict=True)):
        residue = particle.residue
        table[f"bead {bead}"] = (
            f"file particle {particle.index} ({particle.name} of {residue.name} {residue.resSeq}) is "
            + span(ladder.topology, residues)
        )
    return table


def _refuse_backbones(config: SystemConfig, spec: str, particles: list[Any], source: str) -> None:
    """Martini's backbone beads are neither C-alpha atoms nor centres of whole residues."""
    if spec == "bb" or spec.startswith("file:"):
        return
    if {particle.name for particle in particles} == {"BB"}:
        raise InputError(
            f"{source}: BB beads are centres of backbones, not {config.resolution}; use a ladder of fg, bb, … "
            f"and `resolution: bb` for system {config.name}"
        )


def _ladder(config: SystemConfig, specs: list[str], particles: list[Any], source: str) -> Ladder:
    assert config.resolution is not None
    place = [resolution_name(spec) for spec in specs].index(config.resolution)
    if config.molecule and _is_store(config.molecule):
        return _stored_ladder(config, config.molecule, specs)
    learned = [spec for spec in specs[: place + 1] if spec.endswith((":blobs", ":cgae"))]
    if learned:
        raise ConfigError(
            f"system {config.name}: {learned[0]} was made from structures; name the frame store that has it "
            "as `molecule`"
        )
    return build_ladder(_molecule(config, particles, source), specs[: place + 1])


def resolution_of(config: SystemConfig) -> str:
    """What the beads of a system are. Raises ConfigError where it does not say."""
    if config.resolution is None:
        raise ConfigError(f"system {config.name}: beads need a `resolution`")
    return config.resolution


def _is_store(path: str) -> bool:
    return "://" in path or Path(path).is_dir()


def _stored_ladder(config: SystemConfig, molecule: str, specs: list[str]) -> Ladder:
    from hpcbackmap.store.store import open_store

    ladder = open_store(molecule).system(config.name).ladder
    wanted = tuple(resolution_name(spec) for spec in specs)
    if ladder.resolutions != wanted:
        raise InputError(
            f"{molecule}: its ladder is {', '.join(ladder.resolutions)}, the campaign's is "
            f"{', '.join(wanted)}"
        )
    return ladder


def _molecule(config: SystemConfig, particles: list[Any], source: str) -> Topology:
    if config.molecule:
        found = load_topology(config.molecule)
        _, first = describe_file(config.molecule, found)
        return topology_from_mdtraj(found, first, config.molecule)[0]
    if config.sequence is not None:
        chains = read_sequences(config.sequence)
        if not all(chains):
            raise ConfigError(f"system {config.name}: sequence: a chain is empty")
        return topology_from_sequence(chains)
    return _named_residues(config, particles, source)


def _named_residues(config: SystemConfig, particles: list[Any], source: str) -> Topology:
    """The molecule that the residue names of a file with one particle per residue imply."""
    parents = [_parent(particle.residue.name) for particle in particles]
    names = [name for name in parents if name is not None]
    residues = {particle.residue.index for particle in particles}
    if len(names) < len(parents) or len(residues) < len(particles):
        raise InputError(
            f"{source}: its residue names tell no sequence; give system {config.name} a `sequence` or a "
            "`molecule`"
        )
    chains = [particle.residue.chain.index for particle in particles]
    letters = [
        "".join(RESIDUES[name].letter for _, name in group)
        for _, group in itertools.groupby(zip(chains, names, strict=True), lambda item: item[0])
    ]
    return topology_from_sequence(letters)


def _parent(name: str) -> str | None:
    return standard_residue_name(name) or modified_parent(name)


def _require_residues(
    config: SystemConfig, ladder: Ladder, particles: list[Any], source: str
) -> None:
    """Of one bead per residue, names must be those of the sequence, unless all are one dummy name."""
    assert config.resolution is not None
    sequence = ladder.topology.sequence
    if len(particles) != len(sequence):
        return
    groups = bead_residues(ladder, config.resolution)
    names = [_parent(particle.residue.name) for particle in particles]
    if None in names or len(set(names)) == 1:
        return
    for bead, (particle, name, residues) in enumerate(zip(particles, names, groups, strict=True)):
        if name not in {sequence[residue] for residue in residues}:
            raise InputError(
                f"{source}: particle {particle.index} is of {particle.residue}, but bead {bead} of "
                f"{config.resolution} is {span(ladder.topology, residues)}; put the particles in order "
                "with `beads`"
            )
