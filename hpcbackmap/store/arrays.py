"""Making the arrays of a frame store: all of them, at their full size, before anything is written."""

from typing import Any

import numpy as np
import zarr

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.store import layout
from hpcbackmap.store.attributes import Attributes, SystemRecord

__all__ = ["CHECKSUMS", "create_arrays", "create_checksums"]

POSITION = LENGTH = {"unit": "nm"}
TIME = {"unit": "ps"}
LADDER_CHUNK = 1 << 20
CHECKSUMS = "checksums"
"""Name of the array with the SHA-256 of every shard."""
CHECKSUM_CHUNK = 1 << 15
PACK_CHUNK = 1 << 13
"""Rows, 0.1 MB: a few small proteins are decoded to read one."""


def create_arrays(
    root: zarr.Group, attributes: Attributes, config: StoreConfig, ladders: np.ndarray
) -> None:
    """Make every array that ``attributes`` (of the store) promise; only ``ladders`` is filled."""
    chunk = min(max(1, len(ladders)), LADDER_CHUNK)
    array = root.create_array(
        "ladders",
        shape=ladders.shape,
        dtype="uint8",
        chunks=(chunk,),
        shards=(_multiple(len(ladders), chunk),),
        compressors=layout.compressors()[1:],
    )
    array[:] = ladders
    for record in attributes["systems"]:
        if record["pack"] is None:
            _create_system(root, f"systems/{record['name']}", record, attributes, config)
    for pack in range(attributes["packs"]):
        members = [record for record in attributes["systems"] if record["pack"] == pack]
        _create_pack(root, f"packs/{pack}", members, attributes)


def create_checksums(root: zarr.Group, values: np.ndarray) -> None:
    """The SHA-256 of every shard, uint8 [shards, 32]; made last, when all are written."""
    array = root.create_array(
        CHECKSUMS,
        shape=values.shape,
        dtype="uint8",
        chunks=(min(len(values), CHECKSUM_CHUNK), 32),
        compressors=layout.compressors()[1:],
        dimension_names=("shard", "byte"),
        overwrite=True,
    )
    array[:] = values


def _create_system(
    root: zarr.Group, folder: str, record: SystemRecord, attributes: Attributes, config: StoreConfig
) -> None:
    shard, frames = record["shard_frames"], record["frames"]
    particles = record["particles"]
    chunks = layout.chunk_frames(particles, shard, config)
    for resolution, count, chunk in zip(attributes["resolutions"], particles, chunks, strict=True):
        _create_positions(
            root,
            f"{folder}/{layout.position_path(resolution)}",
            attributes,
            resolution,
            shape=(frames, count, 3),
            chunks=(chunk, count, 3),
            shards=(shard, count, 3),
            dimension_names=("frame", "particle", "xyz"),
        )
    _create_observables(root, folder, attributes, frames, shard)
    for name, kind in attributes.get("residue_values", {}).items():
        unit = layout.RESIDUE_UNIT.get(name)
        root.create_array(
            f"{folder}/{layout.residue_path(name)}",
            shape=(frames, record["residues"]),
            dtype=kind,
            chunks=(chunks[0], record["residues"]),
            shards=(shard, record["residues"]),
            compressors=layout.compressors(),
            fill_value=np.nan,
            attributes={"unit": unit} if unit else {},
            dimension_names=("frame", "residue"),
        )


def _create_pack(
    root: zarr.Group, folder: str, members: list[SystemRecord], attributes: Attributes
) -> None:
    """Rows are all particles of all frames of all members; one shard."""
    for level, resolution in enumerate(attributes["resolutions"]):
        rows = sum(record["frames"] * record["particles"][level] for record in members)
        chunk = min(rows, PACK_CHUNK)
        _create_positions(
            root,
            f"{folder}/{layout.position_path(resolution)}",
            attributes,
            resolution,
            shape=(rows, 3),
            chunks=(chunk, 3),
            shards=(_multiple(rows, chunk), 3),
            dimension_names=("row", "xyz"),
        )
    frames = sum(record["frames"] for record in members)
    _create_observables(root, folder, attributes, frames, frames)


def _create_positions(
    root: zarr.Group, path: str, attributes: Attributes, resolution: str, **sizes: Any
) -> None:
    quantised = attributes["quantised"] and resolution == attributes["resolutions"][0]
    root.create_array(
        path,
        dtype="int32" if quantised else "float32",
        fill_value=np.iinfo(np.int32).min if quantised else np.nan,
        compressors=layout.compressors(),
        attributes=POSITION | ({"scale": layout.QUANTUM_NM} if quantised else {}),
        **sizes,
    )


def _create_observables(
    root: zarr.Group, folder: str, attributes: Attributes, frames: int, shard: int
) -> None:
    for name, kind in attributes["observables"].items():
        root.create_array(
            f"{folder}/{layout.observable_path(name, attributes['resolutions'][0])}",
            shape=(frames,),
            dtype=kind,
            chunks=(shard,),
            shards=(shard,),
            compressors=layout.compressors(),
            attributes=dict(TIME if name == "time" else LENGTH if name in layout.CELL else {}),
            dimension_names=("frame",),
        )


def _multiple(length: int, unit: int) -> int:
    """The smallest multiple of ``unit`` that is not below ``length``; one unit at least."""
    return max(1, -(-length // unit)) * unit
