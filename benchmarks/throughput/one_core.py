r"""What a structure costs from the shipped C-alpha to heavy-atom stage on one core, part by part.

    HPCBACKMAP_DATA=FOLDER python benchmarks/throughput/one_core.py \
        [--pulchra "PROGRAM OPTIONS"] [--beside FOLDER]

Adenylate kinase (214 residues), frames of one path: a member, a further member of the same frame, one answer.
CPU time of the process, the least and the median of repeats in which all take turns. A part's time is that of
its functions without those of other parts in them.

--pulchra: PULCHRA on the same frames in the same turns, as CPU time of its process, less that for six residues,
which is start-up. Its options come first and the file last, as "pulchra -c" (C-alpha atoms stay). Of the source
that `pip download --no-binary :all: pypulchra` gives (C++ of version 3.06), `g++ -O3 -std=c++14 -Isrc
-o pulchra src/pulchra.cpp` makes a program that is called as "pulchra -c -k /tmp/out.pdb -y ''". The C program
has plain pointers where it has shared ones, which cost it a third of its time; to take them out:
    sed -i -E 's/std::shared_ptr</Ptr</g; s/std::make_shared<([A-Za-z0-9_]+)>\(/new \1(/g
        s/^namespace pulchra \{/& template<class T> using Ptr = T*;/' src/pulchra.hpp
--beside: another checkout, timed by turns with this one in a process of its own.
"""

import argparse
import inspect
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import torch

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot import model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import machine

try:
    from hpcbackmap.stages.genzprot import drawing, network
except ImportError:  # another checkout, from before they were parted
    drawing = network = model

FRAMES, REPEATS, MEMBERS = 16, 7, 3
PULCHRA_FRAMES, SHORT = 4, 6
PLACING = getattr(drawing, "SideChains", model.Genzprot)
PARTS = {
    "trunk": [(model.Genzprot, "_context")],
    "planes": [
        (network, "angle_tables"),
        (network.planes, "angle_tables"),
        (network.planes.PlaneHead, "draw"),
        (network.planes.PlaneHead, "mode"),
    ],
    "planes turned away": [(drawing, "relieve")],
    "backbone atoms": [
        (model.Genzprot, "_rigid"),
        (model.Genzprot, "_backbone"),
        (model.Genzprot, "_with_ends"),
    ],
    "order of the answer": [(PLACING, "doubt"), (PLACING, "_doubt")],
    "side-chain draw": [(PLACING, "place"), (PLACING, "_pack")],
    "partners": [(drawing, "meet")],
    "redraws": [(PLACING, "redraw"), (PLACING, "_redraw")],
    "settle": [(drawing, "settle")],
    "push": [(drawing, "push")],
    "ease": [(drawing, "ease")],
}
"""Functions of each part; another checkout may lack some."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--pulchra", type=shlex.split, help="Program and options.")
    parser.add_argument("--beside", type=Path, help="Another checkout.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    torch.set_num_threads(1)
    keep_freed_memory()
    frames = read(Path(given.data), given.frames)
    ours = Ours(frames)
    if given.serve:
        serve(ours)
        return
    runs: dict[str, Callable[[], dict[str, float]]] = {"this": ours.turn}
    if given.beside:
        runs["beside"] = Beside(given).turn
    if given.pulchra:
        runs["PULCHRA"] = Pulchra(given.pulchra, frames).turn
    turns: dict[str, list] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):
        for name, run in runs.items():
            found = run()
            if repeat:
                turns[name].append(found)
    result = {name: summary(found) for name, found in turns.items()}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result, given.frames))


def read(data: Path, frames: int) -> mdtraj.Trajectory:
    folder = data / "adenylate_kinase"
    path = mdtraj.load(str(folder / "adk_dims_a.xtc"), top=str(folder / "adk_dims_a_top.pdb"))
    return path[:: len(path) // frames][:frames]


class Ours:
    """The shipped stage; `turn` gives CPU milliseconds a frame of every answer and of their parts."""

    def __init__(self, frames: mdtraj.Trajectory):
        topology = topology_from_sequence([frames.topology.to_fasta(0)])
        self.coarse = torch.from_numpy(frames.xyz[:, frames.topology.select("name CA")])
        self.stage = load_artifact(shipped_artifact()).eval()
        self.system = collate([self.stage.describe(build_ladder(topology, ["fg", "ca"]))])
        generator = torch.Generator().manual_seed(0)
        shape = (MEMBERS, *self.coarse.shape[:2], self.stage.noise_width)
        self.noises = list(torch.randn(*shape, generator=generator))
        self.clock = Clock()

    def turn(self) -> dict[str, float]:
        one = self._timed("member", lambda: self.stage.samples(*self._given, self.noises[:1]))
        more = self._timed("members", lambda: self.stage.samples(*self._given, self.noises))
        mode = self._timed("one answer", lambda: self.stage.mode(*self._given))
        further = (more.pop("members") - one["member"]) / (MEMBERS - 1)
        return {**one, "further member": further, **mode}

    @property
    def _given(self) -> tuple:
        return self.coarse, self.system

    def _timed(self, name: str, run: Callable[[], object]) -> dict[str, float]:
        self.clock.parts.clear()
        begun = time.process_time()
        run()
        whole = {name: time.process_time() - begun}
        parts = {f"{name}: {part}": value for part, value in self.clock.parts.items()}
        scale = 1e3 / len(self.coarse)
        return {key: scale * value for key, value in (whole | parts).items()}


class Clock:
    """Wraps the functions of `PARTS`; parts: CPU seconds of each."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.inner = [0.0]
        for part, functions in PARTS.items():
            for owner, name in ((owner, name) for owner, name in functions if hasattr(owner, name)):
                setattr(owner, name, self._wrapped(part, owner, name))

    def _wrapped(self, part: str, owner: object, name: str) -> object:
        plain = inspect.getattr_static(owner, name)
        call = plain.__func__ if isinstance(plain, staticmethod) else plain

        def timed(*inputs: object, **options: object) -> object:
            self.inner.append(0.0)
            begun = time.process_time()
            found = call(*inputs, **options)
            spent = time.process_time() - begun
            self.parts[part] = self.parts.get(part, 0.0) + spent - self.inner.pop()
            self.inner[-1] += spent
            return found

        return staticmethod(timed) if isinstance(plain, staticmethod) else timed


def serve(ours: Ours) -> None:
    """A turn for every line that comes in."""
    for _ in sys.stdin:
        print(json.dumps(ours.turn()), flush=True)


class Beside:
    """The same of another checkout."""

    def __init__(self, given: argparse.Namespace):
        here = os.environ | {"PYTHONPATH": str(given.beside)}
        command = [sys.executable, __file__, "--serve", "--data", str(given.data)]
        self.other = subprocess.Popen(
            [*command, "--frames", str(given.frames)],
            env=here,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self) -> dict[str, float]:
        assert self.other.stdin is not None
        assert self.other.stdout is not None
        print(file=self.other.stdin, flush=True)
        return json.loads(self.other.stdout.readline())


class Pulchra:
    """CPU milliseconds a frame of PULCHRA, start-up taken out."""

    def __init__(self, command: list[str], frames: mdtraj.Trajectory):
        self.command = command
        trace = frames.atom_slice(frames.topology.select("name CA"))
        self.frames = trace[:: max(1, len(trace) // PULCHRA_FRAMES)]

    def turn(self) -> dict[str, float]:
        whole = sum(self._seconds(frame) for frame in self.frames)
        short = sum(self._seconds(frame.atom_slice(range(SHORT))) for frame in self.frames)
        scale = 1e3 / len(self.frames)
        return {"structure": scale * (whole - short), "start-up": scale * short}

    def _seconds(self, frame: mdtraj.Trajectory) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.pdb"
            frame.save_pdb(str(path))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*self.command, str(path)], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summary(turns: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Least and median of every key, of those turns that have it."""
    keys = dict.fromkeys(key for turn in turns for key in turn)
    columns = {key: [turn[key] for turn in turns if key in turn] for key in keys}
    return {
        key: {"least": min(values), "median": statistics.median(values)}
        for key, values in columns.items()
    }


def table(result: dict, frames: int) -> str:
    """Markdown."""
    lines = [
        f"{machine()} CPU milliseconds a frame, {frames} frames of 214 residues a batch, one thread; least and "
        f"median of {REPEATS}.",
        "",
    ]
    others = [name for name in result if name != "PULCHRA"]
    peer = result.get("PULCHRA")
    lines.append("| | " + " | ".join(others) + (" | of PULCHRA |" if peer else " |"))
    lines.append("|---" * (len(others) + 1 + bool(peer)) + "|")
    for key in result["this"]:
        cells = []
        for name in others:
            found = result[name].get(key)
            cells.append(f"{found['least']:.1f}, {found['median']:.1f}" if found else "–")
        if peer:
            share = result["this"][key]["median"] / peer["structure"]["median"]
            cells.append("" if ":" in key else f"{share:.2f}")
        name = f"**{key}**" if ":" not in key else f"– {key.split(': ')[1]}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for key, found in (peer or {}).items():
        lines.append(
            f"| PULCHRA, {key} | {found['least']:.1f}, {found['median']:.1f} |" + " |" * len(others)
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
