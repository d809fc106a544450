"""Ladders from specifications such as ``[fg, ca, ucg:10:blobs]``.

Beads group residues. Where a ladder goes from heavy atoms straight to beads, a bead is the mean of its
C-alpha atoms, so that one-step and multi-step ladders share the same coarse input.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.runtime.parsing import yaml_value

__all__ = ["DEFINITIONS", "build_ladder", "resolution_name", "runs_spec"]

METHODS = ("segments", "blobs", "cgae")
DEFINITIONS = ("ca", "atoms", "mass")
"""What a bead is of its residues: mean of C-alpha atoms, mean of heavy atoms, mass centre."""


def resolution_name(spec: str) -> str:
    """``ucg:10:blobs`` -> ``ucg10``; ``ucg:/4:mass`` -> ``ucgr4mass``; ``file:maps/a.yaml`` -> ``a``.

    A list of lengths, ``ucg:8,12,10``, has the number of beads and a hash in its name.
    """
    kind, _, rest = spec.partition(":")
    if kind == "ucg":
        count, *options = rest.split(":")
        if "," in count:
            mark = hashlib.sha256(count.encode()).hexdigest()[:6]
            count = f"{count.count(',') + 1}x{mark}"
        of = [option for option in options if option in DEFINITIONS[1:]]
        return "ucg" + count.replace("/", "r") + "".join(of)
    if kind == "file":
        return Path(rest).stem
    return kind


def runs_spec(lengths: Sequence[int], definition: str = DEFINITIONS[0]) -> str:
    """The specification of beads of so many residues each, chains one after the other: ``ucg:8,12,10``."""
    return ":".join(["ucg", ",".join(str(int(length)) for length in lengths), definition])


def build_ladder(
    topology: Topology, specs: list[str], positions: np.ndarray | None = None, seed: int = 0
) -> Ladder:
    """Ladder of one system.

    specs: fine to coarse, the first is ``fg``; ``ca``, ``com`` (residue centre of mass),
    ``bb`` (centre of mass of N, CA, C and O, as Martini's BB beads), ``ucg:N[:segments|blobs|cgae]``
    (N beads), ``ucg:/n[...]`` (n residues per bead), ``ucg:8,12,10`` (beads of 8, 12 and 10 residues,
    chains one after the other), ``file:PATH`` (YAML with ``bead`` and optional ``weight``, one entry per
    particle of the resolution before it). A bead of ``ucg`` is the mean of the particles before it; with
    ``:atoms`` or ``:mass`` it is the mean or the mass centre of the heavy atoms of its residues.
    positions: heavy atoms of some frames [F, A, 3], nm; blobs and cgae need them.
    Raises ConfigError for a specification that is not understood, InputError for one that does not fit.
    """
    resolutions, mappings = ["fg"], list[Mapping]()
    definitions: dict[str, str] = {}
    level = topology.n_atoms
    residue_of = topology.atom_residue
    for spec in specs[1:]:
        kind, _, rest = spec.partition(":")
        if kind in ("ca", "com", "bb"):
            if level != topology.n_atoms:
                raise ConfigError(f"ladder: {spec} must come right after fg")
            mapping = Mapping(topology.atom_residue, _site_weights(topology, kind))
        elif kind == "ucg":
            sites = _sites(topology, mappings, positions)
            groups = _group(topology, rest, level, residue_of, sites, seed)
            weight = np.ones(level)
            if level == topology.n_atoms:
                weight = _site_weights(topology, "ca")
            mapping = Mapping(groups, weight)
        elif kind == "file":
            mapping = _from_file(rest, level)
        else:
            raise ConfigError(
                f"ladder: {spec!r} is no resolution; know ca, com, bb, ucg:N, ucg:/n, file:PATH"
            )
        if mapping.n_coarse > level:
            raise InputError(f"ladder: {spec} has {mapping.n_coarse} beads for {level} particles")
        resolutions.append(resolution_name(spec))
        if kind == "ucg" and (of := _options(rest)[2]) != DEFINITIONS[0]:
            definitions[resolutions[-1]] = of
        mappings.append(mapping)
        first = np.array([np.flatnonzero(mapping.bead == b)[0] for b in range(mapping.n_coarse)])
        residue_of = residue_of[first]
        level = mapping.n_coarse
    return Ladder(topology, tuple(resolutions), tuple(mappings), definitions)


def _site_weights(topology: Topology, kind: str) -> np.ndarray:
    if kind == "com":
        return topology.masses
    if kind == "bb":
        return np.where(np.isin(topology.atom_names, BACKBONE), topology.masses, 0.0)
    weight = np.zeros(topology.n_atoms)
    weight[topology.ca_index] = 1.0
    return weight


def _sites(
    topology: Topology, mappings: Sequence[Mapping], positions: np.ndarray | None
) -> np.ndarray | None:
    """Positions to group at the present level; residues (C-alpha) if that is still heavy atoms."""
    if positions is None:
        return None
    if not mappings:
        return positions[:, topology.ca_index]
    for mapping in mappings:
        positions = mapping.apply(positions)
    return positions


def _group(
    topology: Topology,
    rest: str,
    level: int,
    residue_of: np.ndarray,
    sites: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """Bead of each particle of the present level; from heavy atoms, whole residues are grouped."""
    count, method, _ = _options(rest)
    atoms = level == topology.n_atoms
    n_sites = topology.n_residues if atoms else level
    chain = np.array(topology.chain_index)[np.arange(n_sites) if atoms else residue_of]
    if "," in count:
        groups = _listed(count, chain, rest)
        return groups[topology.atom_residue] if atoms else groups
    n_beads = _bead_count(count, n_sites, rest)
    if not 3 <= n_beads <= n_sites:
        raise InputError(
            f"ladder: ucg:{rest} asks for {n_beads} beads of {n_sites} particles; "
            f"three beads at least (fewer have no orientation) and {n_sites} at most"
        )
    if method == "segments":
        groups = _segments(n_sites, n_beads, chain, rest)
    else:
        if sites is None:
            raise InputError(f"ladder: ucg:{rest} is built from structures; none were given")
        from hpcbackmap.resolution import grouping

        groups = getattr(grouping, method)(np.asarray(sites, dtype=np.float64), n_beads, seed)
    return groups[topology.atom_residue] if atoms else groups


def _options(rest: str) -> tuple[str, str, str]:
    """Bead count, grouping and definition of ``ucg:`` followed by ``rest``."""
    count, *options = rest.split(":")
    known = METHODS + DEFINITIONS
    for option in options:
        if option not in known:
            raise ConfigError(
                f"ladder: ucg:{rest}: no grouping {option!r}; know {', '.join(known)}"
            )
    method, of = ([o for o in options if o in words] for words in (METHODS, DEFINITIONS))
    if len(method) > 1 or len(of) > 1:
        raise ConfigError(
            f"ladder: ucg:{rest} says twice how residues are grouped or what a bead is"
        )
    return count, *(method or METHODS[:1]), *(of or DEFINITIONS[:1])


def _listed(lengths: str, chain: np.ndarray, rest: str) -> np.ndarray:
    """Runs of the lengths that are given, which add up to every chain in turn."""
    try:
        sizes = np.array([int(size) for size in lengths.split(",")])
    except ValueError:
        raise ConfigError(f"ladder: ucg:{rest}: lengths are whole numbers with commas") from None
    if len(sizes) < 3 or sizes.min() < 1:
        raise ConfigError(f"ladder: ucg:{rest}: three beads at least, each of one residue or more")
    if sizes.sum() != len(chain):
        raise InputError(
            f"ladder: ucg:{rest}: the lengths add up to {sizes.sum()}, there are {len(chain)} residues"
        )
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.flatnonzero(chain[1:] != chain[:-1])
    across = ends[groups[ends] == groups[ends + 1]]
    if len(across):
        raise InputError(
            f"ladder: ucg:{rest}: bead {groups[across[0]]} crosses the end of a chain after residue "
            f"{across[0] + 1}"
        )
    return groups


def _bead_count(count: str, n_sites: int, rest: str) -> int:
    try:
        if count.startswith("/"):
            return max(3, round(n_sites / int(count[1:])))
        return int(count)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"ladder: ucg:{rest}: {count!r} is no bead count (10) or size (/4)"
        ) from None


def _segments(n_sites: int, n_beads: int, chain: np.ndarray, rest: str) -> np.ndarray:
    """Contiguous stretches of nearly equal length that never cross a chain end."""
    starts = np.flatnonzero(np.r_[True, chain[1:] != chain[:-1]])
    lengths = np.diff(np.r_[starts, n_sites])
    if n_beads < len(lengths):
        raise InputError(
            f"ladder: ucg:{rest} has fewer beads than the system has chains ({len(lengths)})"
        )
    shares = np.ones(len(lengths), dtype=int)
    for _ in range(n_beads - len(lengths)):
        shares[np.argmax(lengths / shares)] += 1
    groups, first = [], 0
    for length, share in zip(lengths, shares, strict=True):
        groups.append(first + np.arange(length) * share // length)
        first += share
    return np.concatenate(groups)


def _from_file(path: str, level: int) -> Mapping:
    try:
        record = yaml_value(read_regular(path).decode())
        bead = np.array(record["bead"])
        weight = np.array(record.get("weight", np.ones(len(bead))), dtype=np.float64)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: a mapping file has a list `bead` and optionally a list `weight`"
        ) from None
    unknown = sorted(set(record) - {"bead", "weight"})
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0]!r}; a mapping file has bead and weight")
    if bead.dtype.kind not in "iu" or bead.ndim != 1:
        raise InputError(f"{path}: bead is a list of whole numbers, one per particle")
    if len(bead) != level:
        raise InputError(
            f"{path}: maps {len(bead)} particles, the resolution before it has {level}"
        )
    try:
        mapping = Mapping(bead, weight)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if mapping.n_coarse < 3:
        raise InputError(
            f"{path}: {mapping.n_coarse} bead(s); three at least, fewer have no orientation"
        )
    return mapping
