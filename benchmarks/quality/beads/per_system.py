"""Ultra-coarse beads to C-alpha, one protein: the cgvae stage against closed-form regressions.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/beads/per_system.py OUT.json [--steps 0] [--frames 32] [--only SPLIT]

Every baseline gets the same closing projection as the stage. Members are prior samples; a baseline has one
answer. Rows that OUT.json has already are kept.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ensembles import Split, splits
from trace_metrics import figures

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.metrics.rmsd import pairwise_rmsd, superpose
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.layers.close_trace import LIMIT, close_calpha
from hpcbackmap.stages.noise import frame_noise

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from regression import REGRESSIONS

BEADS = (5, 10, 20, 50)
PER_RESIDUE = (20, 10, 4)
"""For short proteins: residues per bead."""
MEMBERS = 5


class Case:
    """One split at one number of beads: traces and beads in nm, the system, what is cis."""

    def __init__(self, split: Split, beads: int, most: int):
        ladder = build_ladder(split.topology, ["fg", "ca", f"ucg:{beads}"])
        self.name, self.ladder, self.rung = split.name, ladder, f"ucg{beads}-ca"
        self.mapping = ladder.mapping(f"ucg{beads}")
        self.train, self.test = (
            _centred(x[:, split.topology.ca_index]) for x in (split.train, split.test)
        )
        keep = np.unique(np.linspace(0, len(self.test) - 1, most).round().astype(int))
        self.test = self.test[keep]
        self.train_beads, self.test_beads = map(self.mapping.apply, (self.train, self.test))
        self.blocks = split.blocks
        length = np.linalg.norm(np.diff(self.train, axis=1), axis=-1)
        self.cis = np.median(length, 0) < LIMIT

    def closed(self, positions: np.ndarray) -> np.ndarray:
        """Beads made exact, then the closing projection."""
        miss = self.test_beads - self.mapping.apply(positions)
        moved = torch.from_numpy(positions + miss[:, self.mapping.bead]).float()
        return close_calpha(moved, self.system, torch.from_numpy(self.cis)).numpy()


def _centred(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(1, keepdims=True)).astype(np.float64)


def baselines(case: Case):
    """(name, positions [F, N, 3]) before closing."""
    yield "bead centre", case.test_beads[:, case.mapping.bead]
    nearest = pairwise_rmsd(case.test_beads, case.train_beads).argmin(1)
    beads = case.train_beads[nearest]
    yield (
        "nearest training frame",
        superpose(case.train[nearest], case.test_beads, beads, case.test_beads),
    )
    for regression in REGRESSIONS:
        model = regression().fit(case.train_beads, case.train, case.blocks)
        yield model.name, model.predict(case.test_beads)


@torch.enable_grad()
def trained(case: Case, steps: int):
    """The stage and the CPU-seconds of its calibration and training."""
    began = time.process_time()
    stage = build_stage(case.rung, CgvaeConfig(), [case.ladder], seed=0)
    system = collate([stage.describe(case.ladder)])
    fine, coarse = (torch.from_numpy(x).float() for x in (case.train, case.train_beads))
    with torch.no_grad():
        stage.calibrate(fine, coarse, system)
    optimiser = torch.optim.AdamW(stage.parameters(), 1e-3)
    generator = np.random.default_rng(0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
        chosen = torch.from_numpy(generator.choice(len(fine), min(16, len(fine)), replace=False))
        noise = torch.from_numpy(
            frame_noise(0, "train", [step], 0, len(chosen) * coarse.shape[1], stage.latent)
        ).view(len(chosen), coarse.shape[1], -1)
        terms = stage.train().loss(fine[chosen], coarse[chosen], system, noise)
        optimiser.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimiser.step()
    return stage.eval(), system, time.process_time() - began


@torch.no_grad()
def ours(case: Case, steps: int) -> list[dict]:
    stage, system, seconds = trained(case, steps)
    case.system = system
    coarse = torch.from_numpy(case.test_beads).float()
    frames = list(range(len(coarse)))
    shape = (coarse.shape[1], stage.noise_width)
    members = []
    began = time.process_time()
    for member in range(MEMBERS):
        noise = torch.from_numpy(frame_noise(0, case.rung, frames, member, *shape))
        members.append(stage.sample(coarse, system, noise).numpy())
    cost = 1e3 * (time.process_time() - began) / (MEMBERS * len(coarse))
    began = time.process_time()
    stage.decode(noise[..., : stage.latent], coarse, system)
    network = 1e3 * (time.process_time() - began) / len(coarse)
    shared = {"train_cpu_s": seconds, "ms_per_frame": cost, "network_ms_per_frame": network}
    mode = stage.mode(coarse, system).numpy()[None]
    return [
        {
            "method": f"cgvae members, {steps} steps",
            **figures(np.array(members), case.test, case.cis),
            **shared,
        },
        {
            "method": f"cgvae one answer, {steps} steps",
            **figures(mode, case.test, case.cis),
            **shared,
        },
    ]


def bead_counts(split: Split) -> list[int]:
    n = split.topology.n_residues
    if n > 120:
        return list(BEADS)
    return sorted({max(4, round(n / per)) for per in PER_RESIDUE})


def shown(item: tuple[str, object]) -> str:
    key, value = item
    return f"{key}={value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--frames", type=int, default=32, help="test frames, evenly spaced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for name, split in splits().items():
        if arguments.only and arguments.only != name:
            continue
        for beads in bead_counts(split):
            have = {row["method"] for row in rows if (row["split"], row["beads"]) == (name, beads)}
            if f"cgvae members, {arguments.steps} steps" in have:
                continue
            case = Case(split, beads, arguments.frames)
            new = ours(case, arguments.steps)
            if "ridge" not in have:
                for method, positions in baselines(case):
                    closed = case.closed(positions)[None]
                    new.append({"method": method, **figures(closed, case.test, case.cis)})
            rows += [{"split": name, "beads": beads, **row} for row in new]
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
            for row in new:
                print(name, beads, *map(shown, row.items()), flush=True)


if __name__ == "__main__":
    main()
