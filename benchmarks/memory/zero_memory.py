"""What ZeRO, activation checkpointing, bf16 and a ladder of several steps do for memory and time.

    HPCBACKMAP_DATA=... python benchmarks/memory/zero_memory.py FOLDER > benchmarks/records/DATE-zero-memory.md

Every measurement is a process of its own, or two ranks, and a file in FOLDER/measured; what is there is not
measured again. Two ranks have a GPU each where there are two, else they share the CPU (Linux). Memory is the
peak above what the process holds with its libraries, batches and untrained weights: resident memory on the CPU,
allocated memory on a GPU. One stage alone is measured with freed memory given back at once, so that the peak is
that of what is alive, and timed with memory kept, as the commands do.
"""

import argparse
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "trpcage"
RANKS = 2
WAYS = ("DDP", "ZeRO 0", "ZeRO 1", "ZeRO 2", "ZeRO 3")
SIZES = {
    "small": {"width": 128, "layers": 4, "batch": 16, "steps": 20},
    "wide": {"width": 1950, "layers": 4, "batch": 4, "steps": 5},
}
"""Heavy-atom stages of the example (20 residues)."""
BEADS, BATCH, STEPS = 50, 8, 8
VARIANTS = {
    "plain": {},
    "activation_checkpointing": {"activation_checkpointing": True},
    "bf16": {"precision": "bf16"},
    "both": {"activation_checkpointing": True, "precision": "bf16"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.measure:
        kind, *what = json.loads(arguments.measure)
        (measure_ranks if kind == "ranks" else measure_stage)(folder, *what)
        return
    (folder / "measured").mkdir(parents=True, exist_ok=True)
    print(record(folder))


def record(folder: Path) -> str:
    shared = {
        (size, way): in_process(folder, RANKS, "ranks", size, way) for size in SIZES for way in WAYS
    }
    rungs = ladders(folder)
    stages = {
        (steps, name, variant): in_process(
            folder, 1, "stage", 2 if name == "ca-fg" else steps, name, variant
        )
        for steps, name in rungs
        for variant in (VARIANTS if (steps, name) in varied(rungs) else ("plain",))
    }
    device = next(iter(shared.values()))["device"]
    return "\n".join(
        [
            *header("Memory of training", ("torch", "deepspeed", "torch_geometric")),
            f"{device}.",
            "",
            *ranks_table(shared),
            *variants_table(stages, varied(rungs)),
            *ladders_table(stages, rungs),
        ]
    )


def ranks_table(shared: dict) -> list[str]:
    lines = [f"## ZeRO and DDP, {RANKS} ranks", ""]
    for size, settings in SIZES.items():
        first = shared[size, "ZeRO 0"]
        weights = 4 * first["parameters"] / 2**20
        lines += [
            f"{size}: genzprot, width {settings['width']}, {first['parameters']:,} parameters, "
            f"{settings['batch']} frames of 20 residues a step.",
            "",
            "| | optimiser state, bytes a rank | of that without ZeRO | peak MB a rank, weights included | "
            "s a step (wall) | CPU s a rank | loss of the last step |",
            "|---|---|---|---|---|---|---|",
        ]
        for way in WAYS:
            found = shared[size, way]
            held = " and ".join(f"{it:,}" for it in dict.fromkeys(found["optimizer_bytes"]))
            share = max(found["optimizer_bytes"]) / max(first["optimizer_bytes"])
            lines.append(
                f"| {way} | {held} | {share:.6f} | {max(found['peak_mb']) + weights:,.0f} | "
                f"{found['wall']:.2f} | {found['cpu']:.2f} | {found['loss']:.6f} |"
            )
        lines.append("")
    return lines


def variants_table(stages: dict, chosen: list) -> list[str]:
    lines = [
        f"## Activation checkpointing and bf16, {BATCH} frames of 214 residues, one process",
        "",
        "| stage | | activations MB (inspect) | peak MB of a step | CPU s a step | loss of the last step |",
        "|---|---|---|---|---|---|",
    ]
    for steps, name in chosen:
        for variant in VARIANTS:
            found = stages[steps, name, variant]
            lines.append(
                f"| {name} | {variant} | {found['activations_mb']:.0f} | {found['step_mb']:.0f} | "
                f"{found['cpu']:.2f} | {found['loss']:.4f} |"
            )
    return [*lines, ""]


def ladders_table(stages: dict, rungs: list) -> list[str]:
    lines = [
        f"## One step against several, adenylate kinase (214 residues), {BEADS} beads, {BATCH} frames a step",
        "",
        "| ladder | stage | kind | parameters | activations MB (inspect) | peak MB of a step | CPU s a step | "
        "peak MB of the start | CPU s of the start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for steps, name in rungs:
        found = stages[steps, name, "plain"]
        lines.append(
            f"| {steps}-step | {name} | {found['kind']} | {found['parameters']:,} | "
            f"{found['activations_mb']:.0f} | {found['step_mb']:.0f} | {found['cpu']:.2f} | "
            f"{found['start_mb']:.0f} | {found['start_cpu']:.1f} |"
        )
    return [*lines, "", "Start: what is fitted in closed form before the first step."]


def ladders(folder: Path) -> list[tuple[int, str]]:
    """(steps, stage) of the three ladders, whose frames are ingested."""
    rungs = []
    for steps in (1, 2, 3):
        campaign = adk(folder, steps)
        rungs += [(steps, name) for name in reversed(campaign.rungs())]
    return rungs


def varied(rungs: list) -> list[tuple[int, str]]:
    """The stage of one step, and the largest of two."""
    return [rungs[0], (2, "ca-fg")]


def adk(folder: Path, steps: int):
    """Campaign of one ladder with its frames ingested."""
    sys.path.insert(0, str(HERE.parent / "quality" / "kstep"))
    from ladders import PROTEINS, make_campaign, write_campaign

    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import LocalComm

    data = Path(os.environ.get("HPCBACKMAP_DATA") or sys.exit("set HPCBACKMAP_DATA"))
    campaign = make_campaign(PROTEINS["adk"], data, folder / f"adk-{steps}", BEADS, steps, 60)
    write_campaign(campaign)
    ingest(campaign, LocalComm())
    return campaign


def in_process(folder: Path, ranks: int, *what) -> dict:
    path = folder / "measured" / f"{'-'.join(map(str, what)).replace(' ', '')}.json"
    if not path.exists():
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [*launcher, __file__, str(folder), "--measure", json.dumps(what)]
        environ = {"OMP_NUM_THREADS": "1"} | os.environ
        environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environ.get("PYTHONPATH", "")])
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        path.write_text(lines[-1] + "\n")
        print(*what, lines[-1], file=sys.stderr)
    return json.loads(path.read_text())


def measure_ranks(folder: Path, size: str, way: str) -> None:
    """One rank of a short training, by DeepSpeed or by torch's DDP alone; rank 0 prints."""
    import torch

    from hpcbackmap.config.load import load_campaign
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import LocalComm
    from hpcbackmap.training.ranks.rendezvous import join
    from hpcbackmap.training.ranks.world import on_rank_zero, read_world

    settings = SIZES[size]
    world = read_world(os.environ)
    device = join(world, size)
    train = {"batch_size": settings["batch"], "zero_stage": int(way[-1]) if way != "DDP" else 0}
    campaign = load_campaign(
        EXAMPLE / "campaign.yaml",
        [
            f"workdir={folder / 'trpcage'}",
            f"stages.ca-fg.model={{kind: genzprot, width: {settings['width']}, layers: {settings['layers']}}}",
            f"stages.ca-fg.train={json.dumps(train)}",
        ],
    )
    on_rank_zero(world, lambda: ingest(campaign, LocalComm()))
    stage, feed, batches = prepared(campaign, "ca-fg", world, device, settings["steps"])
    memory = Peak(device)
    step, optimizer = (ddp_step if way == "DDP" else engine_step)(campaign, stage, world, device)
    wall, cpu, losses = timed(step, feed, batches)
    own = {"optimizer_bytes": optimizer(), "peak_mb": memory.mb(), "loss": losses[-1]}
    every = [None] * world.size
    torch.distributed.all_gather_object(every, own)
    if world.rank == 0:
        print(
            json.dumps(
                {
                    "device": str(
                        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
                    ),
                    "parameters": sum(
                        getattr(it, "ds_numel", it.numel()) for it in stage.parameters()
                    ),
                    "optimizer_bytes": [it["optimizer_bytes"] for it in every],
                    "peak_mb": [it["peak_mb"] for it in every],
                    "loss": statistics.mean(it["loss"] for it in every),
                    "wall": wall,
                    "cpu": cpu,
                }
            )
        )


def engine_step(campaign, stage, world, device) -> tuple[Callable, Callable]:
    """(step on inputs -> loss, bytes of optimiser state) of DeepSpeed's engine."""
    from hpcbackmap.training.engine import Objective, apply_gradients, engine_config, make_engine
    from hpcbackmap.training.memory import optimizer_bytes

    train = campaign.stages[stage.name].train
    engine = make_engine(
        Objective(stage, train), train, engine_config(stage.name, train, world.size)
    )

    def step(inputs) -> float:
        loss = engine(*inputs.arguments())["loss"]
        engine.backward(loss)
        apply_gradients(engine, train.learning_rate)
        return loss.item()

    return step, lambda: optimizer_bytes(engine)


def ddp_step(campaign, stage, world, device) -> tuple[Callable, Callable]:
    """The same without DeepSpeed."""
    import torch

    from hpcbackmap.training.engine import Objective

    train = campaign.stages[stage.name].train
    model = Objective(stage, train)
    if world.size > 1:
        model = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=train.learning_rate, weight_decay=0.0)

    def step(inputs) -> float:
        loss = model(*inputs.arguments())["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), train.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def held() -> int:
        return sum(value.nbytes for state in optimizer.state.values() for value in state.values())

    return step, held


def measure_stage(folder: Path, steps: int, name: str, variant: str) -> None:
    """One stage of a ladder alone: its start, then some steps."""
    import torch

    from hpcbackmap.config.load import load_campaign
    from hpcbackmap.runtime.allocator import keep_freed_memory
    from hpcbackmap.training.engine import Objective
    from hpcbackmap.training.memory import activation_bytes
    from hpcbackmap.training.ranks.world import World

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    alone = World(0, 1, 0, "single process")
    train = {"batch_size": BATCH, **VARIANTS[variant]}
    campaign = load_campaign(
        folder / f"adk-{steps}" / "campaign.yaml", [f"stages.{name}.train={json.dumps(train)}"]
    )
    stage, feed, batches = prepared(campaign, name, alone, device, STEPS)
    give_back_memory()
    start_mb, _ = calibrated(campaign, stage, feed, device)
    memory = Peak(device)
    step, _ = ddp_step(campaign, stage, alone, device)
    timed(step, feed, batches[:2])
    step_mb = memory.mb()
    keep_freed_memory()
    start_cpu = calibrated(campaign, stage, feed, device)[1] if variant == "plain" else None
    _, cpu, losses = timed(step, feed, batches)
    objective = Objective(stage, campaign.stages[name].train)
    found = {
        "kind": stage.kind,
        "parameters": sum(it.numel() for it in stage.parameters()),
        "start_mb": start_mb,
        "start_cpu": start_cpu,
        "step_mb": step_mb,
        "cpu": cpu,
        "loss": losses[-1],
        "activations_mb": activation_bytes(objective, feed.inputs(batches[0], "step")) / 2**20,
    }
    print(json.dumps(found))


def prepared(campaign, name: str, world, device, steps: int):
    """Untrained stage, its feed and the batches of this rank."""
    from itertools import islice

    from hpcbackmap.stages.build import build_stage
    from hpcbackmap.store.split import split_frames
    from hpcbackmap.store.store import open_store
    from hpcbackmap.training.feed import Feed

    config = campaign.stages[name]
    store = open_store(campaign.path(campaign.store.path))
    ladders = [store.system(system).ladder for system in store.systems]
    stage = build_stage(name, config.model, ladders, config.train.seed).to(device)
    feed = Feed(store, stage, config.train.seed, device)
    ranges, batch = split_frames(store, campaign.split)["train"], config.train.batch_size
    stream = iter(feed.stream(ranges, batch, world, campaign.store.budget_mb))
    return stage, feed, list(islice(stream, steps + 1))


def calibrated(campaign, stage, feed, device) -> tuple[float, float]:
    """Peak MB and CPU seconds of what a training fits before its first step."""
    import torch

    from hpcbackmap.store.split import split_frames
    from hpcbackmap.training.run import CALIBRATION_FRAMES

    ranges, budget = split_frames(feed.store, campaign.split)["train"], campaign.store.budget_mb
    inputs = feed.sample(ranges, BATCH, CALIBRATION_FRAMES, budget)
    memory, began = Peak(device), time.process_time()
    with torch.no_grad():
        stage.calibrate(inputs.fine, inputs.coarse, inputs.system)
    return memory.mb(), time.process_time() - began


def timed(step: Callable, feed, batches: list) -> tuple[float, float, list[float]]:
    """Median wall and CPU seconds of a step, the first of which is not counted; losses."""
    wall, cpu, losses = [], [], []
    for batch in batches:
        inputs = feed.inputs(batch, "step")
        began = time.perf_counter(), time.process_time()
        losses.append(step(inputs))
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return statistics.median(wall[1:]), statistics.median(cpu[1:]), losses


def give_back_memory() -> None:
    """Tell glibc's malloc to map every block of 64 kB and more for itself, so that freeing it unmaps it."""
    from hpcbackmap.runtime.allocator import M_MMAP_THRESHOLD

    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)


class Peak:
    """Memory above that of now."""

    def __init__(self, device):
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self.begin = torch.cuda.memory_allocated(device) / 2**20
        else:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.begin = _resident_mb("VmRSS")

    def mb(self) -> float:
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self.begin
        return _resident_mb("VmHWM") - self.begin


def _resident_mb(key: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s*(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
