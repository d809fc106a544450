"""Names, sizes and codecs of the frame store; ``docs/format.md`` describes them for other readers."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.parsing import json_value
from hpcbackmap.trajectories.units import frame_bytes

__all__ = [
    "CELL",
    "FORMAT",
    "PLAIN_VERSION",
    "QUANTUM_NM",
    "RESIDUE_UNIT",
    "VERSION",
    "as_read",
    "cell_columns",
    "chunk_frames",
    "compressors",
    "from_quanta",
    "observable_path",
    "pack_ladders",
    "position_path",
    "residue_path",
    "shard_frames",
    "to_quanta",
    "unpack_ladder",
]

FORMAT = "hpcbackmap-frames"
VERSION = 3
"""Newest that is read. Stores without numbers of residues are written as format 2."""
PLAIN_VERSION = 2
CELL = tuple(f"cell_{vector}{axis}" for vector in "abc" for axis in "xyz")
"""Observables of frames with a periodic box: components of its vectors, nm; zeros where a frame has none."""
RESIDUE_UNIT = {"expected_error": "nm"}
"""Of numbers of residues that have one."""
QUANTUM_NM = 0.001
"""Step of quantised positions, which are stored as int32 multiples of it."""
LADDER_BYTES = 1 << 28
"""A ladder that unpacks to more is none: 100 bytes for each of two million atoms."""

"""Three float32 numbers per particle."""
_CHUNK_GROWTH = 4
"""A coarse chunk covers at most so many finer ones, so that readers of fine blocks decode little in vain."""
_UNKNOWN = np.iinfo(np.int32).min


def position_path(resolution: str) -> str:
    return f"particles/{resolution}/position/value"


def observable_path(name: str, finest: str) -> str:
    """Where an observable lives: ``step`` and ``time`` beside the finest positions, others by name."""
    return (
        f"particles/{finest}/position/{name}"
        if name in ("step", "time")
        else f"observables/{name}/value"
    )


def residue_path(name: str) -> str:
    return f"residues/{name}/value"


def shard_frames(n_particles: int, n_frames: int, config: StoreConfig) -> int:
    """Frames per shard: a power of two near ``shard_mb`` at the finest resolution, no more than needed."""
    fitting = _power_below(config.shard_mb * 1e6 / frame_bytes(n_particles))
    needed = 1 << max(0, n_frames - 1).bit_length()
    return min(fitting, needed)


def chunk_frames(n_particles: list[int], shard: int, config: StoreConfig) -> list[int]:
    """Frames per chunk of each resolution, fine to coarse: near ``chunk_mb``, divisors of ``shard``."""
    chunks: list[int] = []
    for count in n_particles:
        target = _power_below(config.chunk_mb * 1e6 / frame_bytes(count))
        if chunks:
            target = min(target, _CHUNK_GROWTH * chunks[-1])
        chunks.append(max(d for d in range(1, min(target, shard) + 1) if shard % d == 0))
    return chunks


def cell_columns(cells: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
    """Components of boxes [n, 3, 3] by the names of their observables; zeros where there is none."""
    if cells is None:
        cells = np.zeros((count, 3, 3))
    return dict(zip(CELL, cells.reshape(-1, 9).T.astype(np.float32), strict=True))


def as_read(values: np.ndarray, dtype: str, quantised: bool) -> np.ndarray:
    """What a reader will find where ``values`` are written."""
    return from_quanta(to_quanta(values)) if quantised else np.ascontiguousarray(values, dtype)


def compressors() -> list[Any]:
    """Lossless compression of a chunk, and its checksum."""
    return [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()]


def to_quanta(positions: np.ndarray) -> np.ndarray:
    """Positions (nm) as int32 multiples of the quantum; what is not a number stays recognisable.

    Multiples that are given stay.
    """
    if positions.dtype == np.int32:
        return positions
    scaled = np.rint(positions.astype(np.float64) / QUANTUM_NM)
    return np.where(np.isfinite(scaled), scaled, _UNKNOWN).astype(np.int32)


def from_quanta(quanta: np.ndarray) -> np.ndarray:
    """Float32 positions (nm) of int32 multiples of the quantum."""
    positions = quanta.astype(np.float32)
    positions[quanta == _UNKNOWN] = np.nan
    positions /= np.float32(1 / QUANTUM_NM)
    return positions


def pack_ladders(ladders: list[Ladder]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Gzipped JSON of every ladder in one uint8 array, and the piece of it that each system uses."""
    pieces, places, known, end = [], [], {}, 0
    for ladder in ladders:
        text = json.dumps(ladder.to_dict(), separators=(",", ":")).encode()
        if text not in known:
            piece = gzip.compress(text, mtime=0)
            known[text] = (end, end + len(piece))
            end += len(piece)
            pieces.append(piece)
        places.append(known[text])
    return np.frombuffer(b"".join(pieces), dtype=np.uint8), places


def unpack_ladder(piece: np.ndarray) -> Ladder:
    """Raises InputError for a piece that is no ladder."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(piece.tobytes(), LADDER_BYTES)
        if not unpacker.eof:
            raise ValueError("cut short, or larger than any ladder")
        return Ladder.from_dict(json_value(text))
    except (zlib.error, ValueError) as error:
        raise InputError(f"damaged ladder: {error}") from None


def _power_below(limit: float) -> int:
    """Largest power of two not above ``limit``; 1 at least."""
    return 1 << max(0, int(limit).bit_length() - 1)
