"""Nested resolutions of one system, each built from the one before it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from hpcbackmap.protein.hydrogens import HYDROGENS, hydrogens_of
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.runtime.errors import InputError

__all__ = ["Ladder"]


@dataclass(frozen=True, eq=False)
class Ladder:
    """resolutions: names, fine to coarse (``("fg", "ca", "ucg10")``).

    mappings: one per rung, ``mappings[i]`` takes ``resolutions[i]`` to ``resolutions[i + 1]``.
    definitions: of beads that are not means of the particles below them but of the heavy atoms of their
    residues: ``atoms`` (mean) or ``mass`` (mass centre), by resolution. Their mapping still says whose
    bead a particle is.
    """

    topology: Topology
    resolutions: tuple[str, ...]
    mappings: tuple[Mapping, ...]
    definitions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = [self.topology.n_atoms] + [mapping.n_coarse for mapping in self.mappings]
        if len(self.resolutions) != len(sizes):
            raise InputError("ladder: one mapping per rung is needed")
        for name, size, mapping in zip(self.resolutions, sizes, self.mappings, strict=False):
            if mapping.n_fine != size:
                raise InputError(
                    f"ladder: {name} has {size} particles, its mapping {mapping.n_fine}"
                )

    def index(self, resolution: str) -> int:
        if resolution not in self.resolutions:
            known = ", ".join(self.resolutions)
            raise InputError(f"ladder: no resolution {resolution!r}; there are {known}")
        return self.resolutions.index(resolution)

    def n_particles(self, resolution: str) -> int:
        if resolution == HYDROGENS and self.topology.protonation:
            return len(hydrogens_of(self.topology).names)
        i = self.index(resolution)
        return self.topology.n_atoms if i == 0 else self.mappings[i - 1].n_coarse

    def mapping(self, coarse: str) -> Mapping:
        """The mapping onto ``coarse`` from the next finer resolution."""
        i = self.index(coarse)
        if i == 0:
            raise InputError("ladder: the finest resolution has no mapping")
        return self.mappings[i - 1]

    def definition(self, resolution: str) -> str:
        """What a bead is: ``atoms``, ``mass``, or ``ca`` where it is a mean of C-alpha atoms."""
        return self.definitions.get(resolution, "ca")

    def is_calpha(self, resolution: str) -> bool:
        """Whether the particles of ``resolution`` are the C-alpha atoms, one per residue, in order."""
        if self.index(resolution) != 1:
            return False
        mapping, one_hot = self.mapping(resolution), np.zeros(self.topology.n_atoms)
        one_hot[self.topology.ca_index] = 1
        return np.array_equal(mapping.bead, self.topology.atom_residue) and np.array_equal(
            mapping.weight, one_hot
        )

    def coarsen(self, positions: np.ndarray, start: str = "fg") -> dict[str, np.ndarray]:
        """Positions of ``start`` [..., N, 3] and of every coarser resolution, by name.

        Raises InputError for beads of heavy atoms if these are not known.
        """
        levels = {start: positions}
        for i in range(self.index(start), len(self.mappings)):
            name = self.resolutions[i + 1]
            if name not in self.definitions:
                levels[name] = self.mappings[i].apply(levels[self.resolutions[i]])
            elif start == self.resolutions[0]:
                levels[name] = self.composed(name).apply(positions)
            else:
                raise InputError(f"ladder: {name} is made from heavy atoms, there are only {start}")
        return levels

    def rung_digest(self, coarse: str) -> str:
        """SHA-256 of the molecule and the mappings down from ``coarse``: what a stage of one molecule fits."""
        mappings = [mapping.to_dict() for mapping in self.mappings[: self.index(coarse)]]
        record = {"topology": self.topology.to_dict(), "mappings": mappings}
        if coarse in self.definitions:
            record["definition"] = self.definitions[coarse]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def composed(self, coarse: str) -> Mapping:
        """Atom-to-``coarse`` mapping: the product of the rungs, or what the beads are defined as."""
        i = self.index(coarse)
        bead = np.arange(self.topology.n_atoms)
        weight = np.ones(self.topology.n_atoms)
        for mapping in self.mappings[:i]:
            weight = weight * mapping.weight[bead]
            bead = mapping.bead[bead]
        if coarse in self.definitions:
            weight = (
                self.topology.masses if self.definitions[coarse] == "mass" else np.ones(len(bead))
            )
        return Mapping(bead, weight)

    def protonated(self, states: Sequence[str]) -> "Ladder":
        """The same of a structure with hydrogens, or without for (); see `Topology`."""
        return replace(self, topology=replace(self.topology, protonation=tuple(states)))

    def to_dict(self) -> dict[str, Any]:
        record = {
            "topology": self.topology.to_dict(),
            "resolutions": list(self.resolutions),
            "mappings": [mapping.to_dict() for mapping in self.mappings],
        }
        return record | ({"definitions": self.definitions} if self.definitions else {})

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Ladder":
        """What `to_dict` described. Raises InputError for a record that is none."""
        try:
            return cls(
                Topology.from_dict(record["topology"]),
                tuple(record["resolutions"]),
                tuple(Mapping.from_dict(item) for item in record["mappings"]),
                dict(record.get("definitions", {})),
            )
        except KeyError as error:
            raise InputError(f"ladder: no key or residue {error}") from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"ladder: not the description of one ({error})") from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of topology, resolutions and mappings."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
