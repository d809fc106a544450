"""What the metadata of a store claim, checked before a frame is read or memory is spent on them.

The attributes of the group have to make sense and, from format 2 on, to have the digest that they had when the
store was made; every array has to be the one that they promise. `verify` reads the frames as well.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.store import layout
from hpcbackmap.store.attributes import Attributes, SystemRecord

__all__ = [
    "HASHED_SINCE",
    "RECOPY",
    "SYSTEM_NAME",
    "ArrayClaim",
    "array_claims",
    "check_array",
    "check_attributes",
    "content_digest",
]

HASHED_SINCE = 2
"""Format that keeps a SHA-256 of the ladders and of every shard."""
SYSTEM_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
RECOPY = "copy the store again, or make it anew"

Count = Annotated[int, Field(ge=1, le=2**53)]
Row = Annotated[int, Field(ge=0, le=2**53)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


PathPart = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=200)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _System(_Model):
    name: Annotated[str, Field(pattern=SYSTEM_NAME, max_length=200)]
    frames: Count
    particles: list[Count]
    shard_frames: Count
    sources: list[tuple[str, Row, Row]]
    ladder: tuple[Row, Count]
    pack: Row | None
    residues: Count | None = None


class _Attributes(_Model):
    """`systems` and what it needs; keys that only people read are not looked at."""

    format_version: Count
    complete: bool
    resolutions: Annotated[list[PathPart], Field(min_length=1)]
    observables: dict[PathPart, str]
    residue_values: dict[PathPart, str] = {}
    quantised: bool
    packs: Row
    provenance: dict[str, Any]
    digest: Sha256
    ladders_sha256: Sha256 | None = None
    content: Sha256 | None = None
    systems: Annotated[list[_System], Field(min_length=1)]

    @field_validator("observables", "residue_values")
    @classmethod
    def _are_numbers(cls, observables: dict[str, str]) -> dict[str, str]:
        for kind in observables.values():
            try:
                numeric = np.dtype(kind).kind in "iuf"
            except TypeError:
                numeric = False
            if not numeric:
                raise ValueError(f"{kind!r} is no type of numbers")
        return observables

    @model_validator(mode="after")
    def _agree(self) -> "_Attributes":
        names = {system.name for system in self.systems}
        if len(names) < len(self.systems):
            raise ValueError("systems: two have one name")
        if len(set(self.resolutions)) < len(self.resolutions):
            raise ValueError("resolutions: two have one name")
        for system in self.systems:
            if len(system.particles) != len(self.resolutions):
                raise ValueError(f"systems: {system.name}: particles of each resolution are needed")
            if system.pack is not None and system.pack >= self.packs:
                raise ValueError(f"systems: {system.name}: no pack {system.pack}")
            if self.residue_values and (system.residues is None or system.pack is not None):
                raise ValueError(f"systems: {system.name}: its number of residues is missing")
            if system.pack is not None and system.shard_frames != system.frames:
                raise ValueError(f"systems: {system.name}: a pack is one shard")
        if {s.pack for s in self.systems} - {None} != set(range(self.packs)):
            raise ValueError("packs: one has no system")
        return self


def check_attributes(path: str, attributes: Mapping[str, Any]) -> None:
    """Raises InputError that names the key if this is no frame store, of a newer format, or if its attributes
    are not those it was made with.
    """
    where = f"{path}/zarr.json"
    if attributes.get("format") != layout.FORMAT:
        raise InputError(f"{path}: a Zarr group, but not a frame store of this package")
    version = attributes.get("format_version")
    if type(version) is int and version > layout.VERSION:
        raise InputError(
            f"{path}: frame store of format {version}, this version of hpcbackmap reads up to "
            f"{layout.VERSION}; update hpcbackmap"
        )
    try:
        _Attributes.model_validate_json(json.dumps(attributes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {key + ': ' if key else ''}{said}; {RECOPY}") from None
    assert isinstance(version, int), "as the model above has found"
    if version < HASHED_SINCE and "ladders_sha256" not in attributes:
        return
    needed = ("ladders_sha256", *(("content",) if attributes["complete"] else ()))
    for key in needed:
        if attributes.get(key) is None:
            raise InputError(f"{where}: {key} is missing; {RECOPY}")
    if content_digest(attributes, attributes["ladders_sha256"]) != attributes["digest"]:
        raise InputError(
            f"{where}: changed since the store was made: systems, resolutions, observables, quantised, "
            f"provenance and ladders do not have the digest that it names; {RECOPY}"
        )


def content_digest(attributes: Mapping[str, Any], ladders_sha256: str) -> str:
    """SHA-256 of what a store is made of; library versions do not count."""
    provenance = {
        key: value for key, value in attributes["provenance"].items() if key != "versions"
    }
    record = {
        key: attributes[key] for key in ("systems", "resolutions", "observables", "quantised")
    }
    if "residue_values" in attributes:
        record["residue_values"] = attributes["residue_values"]
    record |= {"provenance": provenance, "ladders": ladders_sha256}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


class ArrayClaim(NamedTuple):
    """What the attributes promise of an array. shard: its rows in one file; None: any."""

    shape: tuple[int, ...]
    dtype: str
    shard: int | None
    unit: str | None
    scale: float | None


def array_claims(attributes: Attributes) -> dict[str, ArrayClaim]:
    """Every array but the checksums, by its path."""
    length = max(record["ladder"][1] for record in attributes["systems"])
    claims = {"ladders": ArrayClaim((length,), "uint8", None, None, None)}
    packs: list[list[SystemRecord]] = [[] for _ in range(attributes["packs"])]
    for record in attributes["systems"]:
        if record["pack"] is not None:
            packs[record["pack"]].append(record)
            continue
        frames, shard = record["frames"], record["shard_frames"]
        shapes: list[tuple[int, ...]] = [(frames, count, 3) for count in record["particles"]]
        folder = f"systems/{record['name']}"
        _claim(claims, folder, attributes, shapes, frames, shard)
        for name, kind in attributes.get("residue_values", {}).items():
            claims[f"{folder}/{layout.residue_path(name)}"] = ArrayClaim(
                (frames, record["residues"]), kind, shard, layout.RESIDUE_UNIT.get(name), None
            )
    for number, members in enumerate(packs):
        shapes = [
            (sum(record["frames"] * record["particles"][level] for record in members), 3)
            for level in range(len(attributes["resolutions"]))
        ]
        frames = sum(record["frames"] for record in members)
        _claim(claims, f"packs/{number}", attributes, shapes, frames, None)
    return claims


def _claim(
    claims: dict[str, ArrayClaim],
    folder: str,
    attributes: Attributes,
    shapes: list[Any],
    frames: int,
    shard: int | None,
) -> None:
    finest = attributes["resolutions"][0]
    for resolution, shape in zip(attributes["resolutions"], shapes, strict=True):
        quantised = attributes["quantised"] and resolution == finest
        claims[f"{folder}/{layout.position_path(resolution)}"] = ArrayClaim(
            shape,
            "int32" if quantised else "float32",
            shard,
            "nm",
            layout.QUANTUM_NM if quantised else None,
        )
    for name, kind in attributes["observables"].items():
        unit = "ps" if name == "time" else "nm" if name in layout.CELL else None
        claims[f"{folder}/{layout.observable_path(name, finest)}"] = ArrayClaim(
            (frames,), kind, shard, unit, None
        )


def check_array(array: zarr.Array[Any], claim: ArrayClaim) -> str | None:
    """What is wrong with an array (of Zarr), in words; None where it is what was promised."""
    found = {
        "shape": tuple(array.shape),
        "dtype": str(array.dtype),
        "unit": array.attrs.get("unit"),
        "scale": array.attrs.get("scale"),
    }
    for key, value in found.items():
        wanted: Any = getattr(claim, key)
        if value != wanted:
            return f"{key} is {_word(value)}, the store was made with {_word(wanted)}"
    if array.shards is None:
        return "its data are not in shards"
    rows, chunk = array.shards[0], array.chunks[0]
    if claim.shard is not None and rows != claim.shard:
        return f"shards have {rows} rows, the store was made with {claim.shard}"
    whole = array.shards[1:] == array.chunks[1:] == claim.shape[1:]
    if not whole or chunk < 1 or rows < 1 or rows % chunk:
        return f"chunks of {array.chunks} do not divide shards of {array.shards}"
    if claim.shard is None and rows < claim.shape[0]:
        return f"a pack is one shard, this one has {rows} of {claim.shape[0]} rows"
    return None


def _word(value: Any) -> str:
    return "missing" if value is None else str(value)
