"""How fast frames stream from a store, beside other ways to read the same positions.

    python benchmarks/throughput/streaming.py FOLDER > benchmarks/records/DATE-streaming.md
    python benchmarks/throughput/streaming.py FOLDER --grid            chunk, shard and codec, 214 residues

Frames are one conformation with 0.05 nm of noise, rounded to 0.001 nm as XTC files are; the readers take
turns, each in processes of its own that start together. Files are in the page cache. The stand-in for S3
needs `moto[server]` and `s3fs`; without them it is left out, with a note.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from unittest import mock

import mdtraj
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.store import layout
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.stream import FrameStream

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import machine

SYSTEMS = {"214 residues": 214, "3,000 particles": 361}
"""Residues of each."""
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
LEVELS = ("fg", "ca")
BATCH = 32
SEQUENTIAL = 512
"""Frames per read of the plain readers: the fastest of 32, 128, 512 and 2048 for Zarr."""
EPOCHS = 2
S3_MEGABYTES = 8
"""The stand-in is slow: it copies a whole object for every range of it."""
SINGLE = 128
"""Random single frames to read from a store, each of which costs a chunk."""
TURNS = 5
CHUNKS_MB = (0.25, 0.5, 1, 2, 4)
SHARDS_MB = (16, 64, 256)
CODECS = {
    "zstd 1, bit shuffle": ("zstd", 1, "bitshuffle"),
    "zstd 1, byte shuffle": ("zstd", 1, "shuffle"),
    "zstd 1, no shuffle": ("zstd", 1, "noshuffle"),
    "zstd 3, bit shuffle": ("zstd", 3, "bitshuffle"),
    "lz4 1, bit shuffle": ("lz4", 1, "bitshuffle"),
    "lz4 1, byte shuffle": ("lz4", 1, "shuffle"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=96, help="of positions per system")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--grid", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(machine(("zarr", "numcodecs", "numpy", "mdtraj")), end="\n\n")
    measured = grid if arguments.grid else comparison
    for line in measured(folder, arguments.megabytes, arguments.turns):
        print(line, flush=True)


def comparison(folder: Path, megabytes: float, turns: int) -> Iterator[str]:
    """Tables of all readers, one per system and place."""
    for name, residues in SYSTEMS.items():
        case = make_files(folder / str(residues), residues, megabytes)
        yield from table(f"{name}, local", case, str(case / "frames.zarr"), turns)
        small = make_files(folder / f"{residues}-s3", residues, S3_MEGABYTES)
        with s3_stand_in(small / "frames.zarr") as url:
            if url is None:
                yield f"{name}, S3 stand-in: skipped, needs moto[server] and s3fs"
            else:
                yield from table(f"{name}, S3 stand-in", small, url, 1)


def table(title: str, case: Path, store: str, turns: int) -> list[str]:
    """Every reader that makes sense, on one and two ranks; medians over turns."""
    readers = ["zarr", "stream"] if "://" in store else list(READERS)
    kinds = list(product(readers, (False, True), (1, 2)))
    found: dict[tuple, list[dict]] = {kind: [] for kind in kinds}
    for _ in range(turns):
        for reader, shuffled, ranks in kinds:
            found[reader, shuffled, ranks].append(
                measure(reader, str(case), store, shuffled, ranks)
            )
    lines = [
        f"**{title}** ({describe(store)}; share: of sequential Zarr on as many ranks)",
        "",
        "| reader | order | ranks | frames/s | MB/s | share | MB per CPU s | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, values in found.items():
        reader, shuffled, ranks = kind
        base = found["zarr", False, ranks]
        cells = [
            f"{median(values, 'frames_rate'):.0f}",
            f"{median(values, 'rate'):.0f}",
            f"{ratio(values, base, 'rate'):.2f}",
            f"{median(values, 'cpu_rate'):.0f}",
            f"{ratio(values, base, 'cpu_rate'):.2f}",
        ]
        order = "shuffled" if shuffled else "sequential"
        lines.append(f"| {reader} | {order} | {ranks} | {' | '.join(cells)} |")
    return lines + [""]


def grid(folder: Path, megabytes: float, turns: int) -> list[str]:
    """What chunk, shard and codec do to size, writing, sequential and shuffled reading."""
    usual = next(iter(CODECS))
    variants = [(chunk, 64, usual) for chunk in CHUNKS_MB]
    variants += [(1, shard, usual) for shard in SHARDS_MB if shard != 64]
    variants += [(1, 64, codec) for codec in CODECS if codec != usual]
    residues = SYSTEMS["214 residues"]
    rows, cases = [], []
    for number, (chunk, shard, codec) in enumerate(variants):
        case = folder / f"grid-{number}"
        config = StoreConfig(chunk_mb=chunk, shard_mb=shard)
        shutil.rmtree(case, ignore_errors=True)
        seconds = write_store(case, residues, megabytes, config, CODECS[codec])
        cases.append(case)
        rows.append([chunk, shard, codec, f"{megabytes / seconds:.0f}", stored_share(case)])
    kinds = [("zarr", False), ("stream", True), ("zarr", True)]
    values: list[dict] = [{kind: [] for kind in kinds} for _ in variants]
    for _ in range(turns):
        for case, found in zip(cases, values, strict=True):
            for kind in kinds:
                path = str(case / "frames.zarr")
                found[kind].append(measure(kind[0], str(case), path, kind[1], 1))
    lines = [
        "MB per CPU second; the last column is one random frame of both resolutions.",
        "",
        "| chunk MB | shard MB | codec | write | stored / raw | sequential Zarr | shuffled stream | ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, found in zip(rows, values, strict=True):
        single = statistics.median(1000 * v["cpu"] / v["frames"] for v in found["zarr", True])
        rates = [f"{median(found[kind], 'cpu_rate'):.0f}" for kind in kinds[:2]]
        lines.append(f"| {' | '.join(map(str, [*row, *rates, f'{single:.1f}']))} |")
    for case in cases:
        shutil.rmtree(case)
    return lines


def measure(reader: str, case: str, store: str, shuffled: bool, ranks: int) -> dict:
    """One reader on all ranks: rates over the time in which any of them reads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        ranks, context, initializer=keep_barrier, initargs=(context.Barrier(ranks),)
    ) as pool:
        jobs = [
            pool.submit(read, reader, case, store, shuffled, rank, ranks) for rank in range(ranks)
        ]
        results = [job.result() for job in jobs]
    wall = max(r["ended"] for r in results) - min(r["began"] for r in results)
    total = {key: sum(r[key] for r in results) for key in ("megabytes", "frames", "cpu")}
    return total | {
        "frames_rate": total["frames"] / wall,
        "rate": total["megabytes"] / wall,
        "cpu_rate": total["megabytes"] / total["cpu"],
    }


def keep_barrier(barrier) -> None:
    read.barrier = barrier


def read(reader: str, case: str, store: str, shuffled: bool, rank: int, ranks: int) -> dict:
    """In a process of its own: what one rank reads, and its time, from the first batch on."""
    keep_freed_memory()
    pieces = READERS[reader](case, store, shuffled, rank, ranks)
    warm = next(pieces)
    read.barrier.wait()
    began, cpu = time.monotonic(), time.process_time()
    frames = megabytes = 0
    for piece in pieces:
        frames += len(piece[0])
        megabytes += sum(array.nbytes for array in piece) / 1e6
    del warm
    return {
        "began": began,
        "ended": time.monotonic(),
        "cpu": time.process_time() - cpu,
        "frames": frames,
        "megabytes": megabytes,
    }


def own_share(n_frames: int, shuffled: bool, rank: int, ranks: int) -> np.ndarray:
    share = np.arange(rank * n_frames // ranks, (rank + 1) * n_frames // ranks)
    return np.random.default_rng(rank).permutation(share) if shuffled else share


def read_memmap(case: str, store: str, shuffled: bool, rank: int, ranks: int) -> Iterator[list]:
    arrays = [np.load(f"{case}/{level}.npy", mmap_mode="r") for level in LEVELS]
    frames = own_share(len(arrays[0]), shuffled, rank, ranks)
    yield [array[:1] for array in arrays]
    for first in range(0, len(frames), BATCH):
        yield [array[frames[first : first + BATCH]] for array in arrays]


def read_zarr(case: str, store: str, shuffled: bool, rank: int, ranks: int) -> Iterator[list]:
    """Sequential in large pieces; shuffled frame by frame, which needs a chunk for each."""
    root = zarr.open_group(store, mode="r")
    arrays = [root[f"systems/p/{layout.position_path(level)}"] for level in LEVELS]
    frames = own_share(arrays[0].shape[0], False, rank, ranks)
    yield [array[:1] for array in arrays]
    step = 1 if shuffled else SEQUENTIAL
    starts = np.arange(frames[0], frames[-1] + 1, step)
    if shuffled:
        starts = np.random.default_rng(rank).permutation(starts)[:SINGLE]
    for first in starts:
        stop = min(first + step, frames[-1] + 1)
        yield [array[int(first) : int(stop)] for array in arrays]


def read_xtc(case: str, store: str, shuffled: bool, rank: int, ranks: int) -> Iterator[list]:
    """Heavy atoms alone."""
    with mdtraj.formats.XTCTrajectoryFile(f"{case}/fg.xtc") as file:
        frames = own_share(len(file), shuffled, rank, ranks)
        yield [file.read(n_frames=1)[0]]
        if not shuffled:
            file.seek(int(frames[0]))
            for first in range(0, len(frames), BATCH):
                yield [file.read(n_frames=min(BATCH, len(frames) - first))[0]]
            return
        for frame in frames:
            file.seek(int(frame))
            yield [file.read(n_frames=1)[0]]


def read_stream(case: str, store: str, shuffled: bool, rank: int, ranks: int) -> Iterator[list]:
    """Shuffled: `EPOCHS` after the first batch, in which as much is loaded ahead as is yielded."""
    opened = open_store(store)
    n_frames = opened.system("p").n_frames
    flow = FrameStream(
        opened, [FrameRange("p", 0, n_frames)], *LEVELS, BATCH, 0, rank, ranks,
        StoreConfig().budget_mb, shuffle=shuffled,
    )  # fmt: skip
    batches = iter(flow)
    if not shuffled:
        yield [np.empty((1, 1))]
    for batch in batches:
        yield [batch.fine, batch.coarse]
        if shuffled and batch.position == EPOCHS * n_frames:
            batches.close()


READERS = {"memmap": read_memmap, "zarr": read_zarr, "xtc": read_xtc, "stream": read_stream}


def make_files(case: Path, residues: int, megabytes: float) -> Path:
    """The same frames as store, as XTC, and as NumPy arrays."""
    if not (case / "fg.xtc").exists():
        shutil.rmtree(case, ignore_errors=True)
        codec = next(iter(CODECS.values()))
        write_store(case, residues, megabytes, StoreConfig(), codec)
        system = open_store(case / "frames.zarr").system("p")
        for level in LEVELS:
            np.save(case / f"{level}.npy", system.read(level, 0, system.n_frames))
        with mdtraj.formats.XTCTrajectoryFile(str(case / "fg.xtc"), "w") as file:
            file.write(np.load(case / "fg.npy"))
    return case


def write_store(
    case: Path, residues: int, megabytes: float, config: StoreConfig, codec: tuple[str, int, str]
) -> float:
    """CPU seconds that writing the store takes."""
    letters = (LETTERS * (residues // 20 + 1))[:residues]
    ladder = build_ladder(topology_from_sequence([letters]), LEVELS)
    n_particles = ladder.n_particles("fg")
    n_frames = BATCH * int(megabytes / (12e-6 * (n_particles + residues)) / BATCH)
    generator = np.random.default_rng(0)
    base = 1.5 * generator.standard_normal((n_particles, 3))
    case.mkdir(parents=True)
    name, level, shuffle = codec
    codecs = [BloscCodec(cname=name, clevel=level, shuffle=shuffle), Crc32cCodec()]
    seconds = 0.0
    with mock.patch.object(layout, "compressors", return_value=codecs):
        store = create_store(
            case / "frames.zarr", {"p": ladder}, {"p": n_frames}, LEVELS, config, {}
        )
        system = store.system("p")
        for shard in range(system.n_shards):
            rows = min(system.shard_frames, n_frames - shard * system.shard_frames)
            noise = generator.standard_normal((rows, n_particles, 3), dtype=np.float32)
            frames = np.round(base + 0.05 * noise, 3).astype(np.float32)
            levels = ladder.coarsen(frames)
            began = time.process_time()
            system.write_shard(shard, levels)
            seconds += time.process_time() - began
        store.mark_complete()
    return seconds


def stored_share(case: Path) -> str:
    """Bytes on disk over bytes of positions."""
    store = open_store(case / "frames.zarr").system("p")
    raw = 12 * store.n_frames * sum(store.n_particles(level) for level in LEVELS)
    disk = sum(file.stat().st_size for file in case.rglob("c/**/*") if file.is_file())
    return f"{disk / raw:.3f}"


def describe(store: str) -> str:
    system = open_store(store).system("p")
    particles = " + ".join(f"{system.n_particles(level)} {level}" for level in LEVELS)
    return f"{system.n_frames} frames of {particles}"


@contextmanager
def s3_stand_in(store: Path) -> Iterator[str | None]:
    """URL of a copy of a store on a server of S3's interface in this process; None without moto and s3fs."""
    if not (find_spec("moto") and find_spec("s3fs")):
        yield None
        return
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": host,
        "no_proxy": host,
    }
    with mock.patch.dict(os.environ, settings):
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        bucket = f"frames-{store.parent.name}"
        files.mkdir(bucket)
        files.put(str(store), f"{bucket}/frames.zarr", recursive=True)
        yield f"s3://{bucket}/frames.zarr"
    server.stop()


def median(values: list[dict], key: str) -> float:
    return statistics.median(value[key] for value in values)


def ratio(values: list[dict], base: list[dict], key: str) -> float:
    """Median over turns of the ratio within a turn."""
    return statistics.median(a[key] / b[key] for a, b in zip(values, base, strict=True))


if __name__ == "__main__":
    main()
