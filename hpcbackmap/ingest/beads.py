"""Files that hold beads: which particle of the file is which bead of the ladder.

B beads, R residues; positions in nm.
"""

import itertools
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.ingest.selection import select_particles
from hpcbackmap.protein.residue_kinds import modified_parent
from hpcbackmap.protein.residues import BACKBONE, RESIDUES, standard_residue_name
from hpcbackmap.protein.topology import Topology, topology_from_mdtraj, topology_from_sequence
from hpcbackmap.resolution.build import build_ladder, resolution_name
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.checks import Links
from hpcbackmap.trajectories.particles import load_topology
from hpcbackmap.trajectories.reader import describe_file

__all__ = ["bead_links", "bead_table", "match_beads", "typical_steps"]

RESIDUE_REACH = 0.45
"""nm; neighbouring C-alpha atoms are 0.38 apart in a straight chain, thermal motion included."""
BACKBONE_REACH, SIDE_CHAIN_REACH = 0.2, 0.9
"""nm that two beads may be further apart than C-alpha atoms, as means of backbones or of whole residues."""
LEAST = 0.02
"""nm; nearer beads are one particle read twice."""
CLOSEST = 0.2
"""nm; times the cube root of the residues between two beads, what their median distance exceeds."""


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
    spec = next(spec for spec in specs if resolution_name(spec) == config.resolution)
    _refuse_backbones(config, spec, particles, topology_file)
    ladder = _ladder(config, specs, particles, topology_file)
    wanted = ladder.n_particles(config.resolution)
    if len(index) != wanted:
        raise InputError(
            f"{topology_file}: {len(index)} particles, {config.resolution} of system {config.name} has "
            f"{wanted} beads; choose them with `selection` or list them in `beads`"
        )
    _require_residues(config, ladder, particles, topology_file)
    return ladder, index


def bead_table(ladder: Ladder, resolution: str, particles: list) -> dict[str, str]:
    """Of each bead, the particle of the file that stands for it, and its residues."""
    table = {}
    groups = bead_residues(ladder, resolution)
    for bead, (particle, residues) in enumerate(zip(particles, groups, strict=True)):
        residue = particle.residue
        table[f"bead {bead}"] = (
            f"file particle {particle.index} ({particle.name} of {residue.name} {residue.resSeq}) is "
            + _span(ladder.topology, residues)
        )
    return table


def bead_links(ladder: Ladder, resolution: str) -> Links:
    """Beads that follow each other along one unbroken chain, and how far apart these can be.

    A bead is a mean, so that two cannot be further apart than their residues are on the average.
    """
    topology, mapping = ladder.topology, ladder.composed(resolution)
    strand = np.cumsum(~np.array(topology.bonded))
    share = [
        np.bincount(topology.atom_residue, mapping.weight * (mapping.bead == b))
        for b in range(mapping.n_coarse)
    ]
    groups = bead_residues(ladder, resolution)
    pairs, high = [], []
    for a, b in itertools.pairwise(range(len(groups))):
        if len(set(strand[groups[a]]) | set(strand[groups[b]])) == 1:
            apart = np.abs(groups[a][:, None] - groups[b])
            weights = share[a][groups[a]][:, None] * share[b][groups[b]]
            pairs.append((a, b))
            high.append(RESIDUE_REACH * float((weights * apart).sum()) + _offset(ladder, mapping))
    return Links(
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        np.full(len(pairs), LEAST),
        np.array(high),
        partial(_label, topology, groups),
    )


def typical_steps(links: Links, ladder: Ladder, resolution: str) -> tuple[float, float]:
    """Between what the median distance of linked beads must lie, nm."""
    per_bead = ladder.topology.n_residues / ladder.n_particles(resolution)
    return CLOSEST * per_bead ** (1 / 3), float(np.median(links.high)) if len(links.high) else 0.0


def bead_residues(ladder: Ladder, resolution: str) -> list[np.ndarray]:
    """Residues with a share in each bead, ascending."""
    mapping = ladder.composed(resolution)
    counted = mapping.weight > 0
    residue, bead = ladder.topology.atom_residue[counted], mapping.bead[counted]
    return [np.unique(residue[bead == b]) for b in range(mapping.n_coarse)]


def _offset(ladder: Ladder, mapping) -> float:
    names = np.array(ladder.topology.atom_names)[mapping.weight > 0]
    if set(names) == {"CA"}:
        return 0.0
    return BACKBONE_REACH if set(names) <= set(BACKBONE) else SIDE_CHAIN_REACH


def _label(topology: Topology, groups: list[np.ndarray], bead: int) -> str:
    return f"bead {bead} ({_span(topology, groups[bead])})"


def _span(topology: Topology, residues: np.ndarray) -> str:
    """``A:ALA1 to A:GLY5``, with every further stretch after a comma."""
    stretches = np.split(residues, np.flatnonzero(np.diff(residues) > 1) + 1)
    return ", ".join(
        topology.label(int(part[0]))
        + (f" to {topology.label(int(part[-1]))}" if len(part) > 1 else "")
        for part in stretches
    )


def _refuse_backbones(config, spec: str, particles: list, source: str) -> None:
    """Martini's backbone beads are neither C-alpha atoms nor centres of whole residues."""
    if spec == "bb" or spec.startswith("file:"):
        return
    if {particle.name for particle in particles} == {"BB"}:
        raise InputError(
            f"{source}: BB beads are centres of backbones, not {config.resolution}; use a ladder of fg, bb, … "
            f"and `resolution: bb` for system {config.name}"
        )


def _ladder(config, specs: list[str], particles: list, source: str) -> Ladder:
    place = [resolution_name(spec) for spec in specs].index(config.resolution)
    if config.molecule and _is_store(config.molecule):
        return _stored_ladder(config, specs)
    learned = [spec for spec in specs[: place + 1] if spec.endswith((":blobs", ":cgae"))]
    if learned:
        raise ConfigError(
            f"system {config.name}: {learned[0]} was made from structures; name the frame store that has it "
            "as `molecule`"
        )
    return build_ladder(_molecule(config, particles, source), specs[: place + 1])


def _is_store(path: str) -> bool:
    return "://" in path or Path(path).is_dir()


def _stored_ladder(config: SystemConfig, specs: list[str]) -> Ladder:
    from hpcbackmap.store.store import open_store

    ladder = open_store(config.molecule).system(config.name).ladder
    wanted = tuple(resolution_name(spec) for spec in specs)
    if ladder.resolutions != wanted:
        raise InputError(
            f"{config.molecule}: its ladder is {', '.join(ladder.resolutions)}, the campaign's is "
            f"{', '.join(wanted)}"
        )
    return ladder


def _molecule(config: SystemConfig, particles: list, source: str) -> Topology:
    if config.molecule:
        found = load_topology(config.molecule)
        _, first = describe_file(config.molecule, found)
        return topology_from_mdtraj(found, first, config.molecule)[0]
    if config.sequence is not None:
        chains = _chains(config.sequence)
        if not all(chains):
            raise ConfigError(f"system {config.name}: sequence: a chain is empty")
        return topology_from_sequence(chains)
    return _named_residues(config, particles, source)


def _chains(text: str | list[str]) -> list[str]:
    """One-letter codes of each chain, of FASTA text or of a list."""
    if isinstance(text, list):
        return ["".join(chain.split()).upper() for chain in text]
    chains = [""]
    for line in text.split("\n"):
        if line.startswith(">"):
            chains.append("")
        else:
            chains[-1] += "".join(line.split()).upper()
    return chains[1:] if len(chains) > 1 and not chains[0] else chains


def _named_residues(config, particles: list, source: str) -> Topology:
    """The molecule that the residue names of a file with one particle per residue imply."""
    names = [_parent(particle.residue.name) for particle in particles]
    if None in names or len({particle.residue.index for particle in particles}) < len(particles):
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


def _require_residues(config, ladder: Ladder, particles: list, source: str) -> None:
    """Of one bead per residue, names must be those of the sequence, unless all are one dummy name."""
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
                f"{config.resolution} is {_span(ladder.topology, residues)}; put the particles in order "
                "with `beads`"
            )
