"""The transferable beads-to-C-alpha stage fine-tuned on one protein, against training from scratch.

    export HPCBACKMAP_DATA=...
    python benchmarks/quality/beads/fine_tune.py ARTIFACT OUT.json [--residues 10] [--seconds 30]

ARTIFACT has not seen the proteins or their relatives. For so many training frames of one protein: the artifact
as it is, fine-tuned, the same network from scratch (equal CPU time, each the better of two learning rates by
validation), the closed-form stage of one system and ridge, closed. Held-out frames as in `per_system.py`; one
answer and 5 prior samples; differences paired by frame with 95 % bootstrap intervals.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ensembles import Split, splits
from trace_metrics import figures

from hpcbackmap.config.campaign import CgvaeConfig, TraceConfig
from hpcbackmap.metrics.rmsd import aligned_rmsd
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.layers.close_trace import LIMIT, close_calpha
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.model import Trace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from regression import Ridge

PROTEINS = ("adk by path", "p38", "ubiquitin")
FRAMES = (1, 4, 16)
VALIDATION = 0.25
"""Last share of the chosen training frames, at least one, on which the learning rate is chosen."""
RATES = {"fine-tuned": (3e-4, 1e-3), "from scratch": (1e-3, 3e-3)}
RESIDUES_OF_A_BATCH = 900
WARMUP, FLOOR = 20, 0.03
MEMBERS, TEST_FRAMES, BOOTSTRAP = 5, 32, 1000


@dataclass
class Case:
    """One protein and so many training frames: traces and beads [F, ., 3] in nm, centred."""

    protein: str
    ladder: object
    coarse: str
    train: np.ndarray
    test: np.ndarray

    def beads(self, traces: np.ndarray) -> np.ndarray:
        return self.ladder.mapping(self.coarse).apply(traces)

    def tensors(self, traces: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(traces).float(), torch.from_numpy(self.beads(traces)).float()

    def system(self, stage: Stage):
        return collate([stage.describe(self.ladder)])


def make_case(split: Split, residues: int, frames: int) -> Case:
    ladder = build_ladder(split.topology, ["fg", "ca", f"ucg:/{residues}"])
    train, test = (
        x[:, split.topology.ca_index].astype(np.float64) for x in (split.train, split.test)
    )
    train, test = (
        x[np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))]
        for x, most in ((train, frames), (test, TEST_FRAMES))
    )
    train, test = (x - x.mean(1, keepdims=True) for x in (train, test))
    return Case(split.name, ladder, f"ucgr{residues}", train, test)


def fit(stage: Stage, case: Case, traces: np.ndarray, rate: float, seconds: float) -> int:
    """Steps of training in ``seconds`` of CPU time."""
    fine, coarse = case.tensors(traces)
    system = case.system(stage)
    rng = np.random.default_rng(0)
    size = max(1, min(len(fine), RESIDUES_OF_A_BATCH // fine.shape[1]))
    optimiser = torch.optim.AdamW(stage.parameters(), rate, weight_decay=0.01, betas=(0.9, 0.99))
    began, step = time.process_time(), 0
    stage.train()
    while (share := (time.process_time() - began) / seconds) < 1:
        cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + np.cos(np.pi * share))
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARMUP) * cosine
        chosen = torch.from_numpy(rng.choice(len(fine), size, replace=False))
        noise = _noise("train", size, coarse, stage.elbo_noise, step)
        stage.at_step(step)
        optimiser.zero_grad()
        stage.loss(fine[chosen], coarse[chosen], system, noise)["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        step += 1
    stage.eval()
    return step


def _noise(key: str, frames: int, coarse: torch.Tensor, width: int, member: int) -> torch.Tensor:
    shape = (coarse.shape[1], width)
    return torch.from_numpy(frame_noise(0, f"fine-tune/{key}", list(range(frames)), member, *shape))


@torch.no_grad()
def validation_loss(stage: Stage, case: Case, traces: np.ndarray) -> float:
    fine, coarse = case.tensors(traces)
    noise = _noise("validation", len(fine), coarse, stage.elbo_noise, 0)
    return float(stage.loss(fine, coarse, case.system(stage), noise)["loss"])


def trained(make, case: Case, rates: tuple[float, ...], seconds: float) -> tuple[Stage, dict]:
    """``make()`` trained on all training frames with the learning rate that is better on the last of them.

    With one frame there is nothing to choose by: the first rate.
    """
    held = max(1, round(VALIDATION * len(case.train)))
    rate = rates[0]
    if len(case.train) > 1:
        losses = {}
        for candidate in rates:
            stage = make()
            fit(stage, case, case.train[:-held], candidate, seconds)
            losses[candidate] = validation_loss(stage, case, case.train[-held:])
        rate = min(losses, key=losses.get)
    stage = make()
    steps = fit(stage, case, case.train, rate, seconds)
    return stage, {"rate": rate, "steps": steps}


def from_scratch(config: TraceConfig, name: str, case: Case) -> Stage:
    torch.manual_seed(0)
    coarse, fine = name.split("-")
    stage = Trace(fine, coarse, config)
    with torch.no_grad():
        stage.calibrate(*case.tensors(case.train), case.system(stage))
    return stage


def closed_form(case: Case) -> Stage:
    stage = build_stage(f"{case.coarse}-ca", CgvaeConfig(), [case.ladder], seed=0)
    with torch.no_grad():
        stage.calibrate(*case.tensors(case.train), case.system(stage))
    return stage.eval()


@torch.no_grad()
def answers(stage: Stage, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """One answer [1, F, N, 3] and prior samples [M, F, N, 3]."""
    coarse, system = case.tensors(case.test)[1], case.system(stage)
    frames = list(range(len(coarse)))
    shape = (coarse.shape[1], stage.noise_width)
    members = [
        stage.sample(coarse, system, torch.from_numpy(frame_noise(0, "members", frames, m, *shape)))
        for m in range(MEMBERS)
    ]
    return stage.mode(coarse, system).numpy()[None], torch.stack(members).numpy()


def ridge(case: Case, system) -> np.ndarray:
    """Ridge to C-alpha with the beads made exact and the links closed, [1, F, N, 3]."""
    beads, mapping = case.beads(case.test), case.ladder.mapping(case.coarse)
    predicted = Ridge().fit(case.beads(case.train), case.train, None).predict(beads)
    predicted = predicted + (beads - mapping.apply(predicted))[:, mapping.bead]
    cis = torch.from_numpy(_cis(case))
    return close_calpha(torch.from_numpy(predicted).float(), system, cis).numpy()[None]


def _cis(case: Case) -> np.ndarray:
    return np.median(np.linalg.norm(np.diff(case.train, axis=1), axis=-1), 0) < LIMIT


def rows_of(case: Case, artifact: Path, seconds: float) -> list[dict]:
    pretrained = load_artifact(artifact)
    stages = {"transferable": (pretrained.eval(), {})}
    stages["fine-tuned"] = trained(
        lambda: load_artifact(artifact), case, RATES["fine-tuned"], seconds
    )
    stages["from scratch"] = trained(
        lambda: from_scratch(pretrained.config, pretrained.name, case),
        case,
        RATES["from scratch"],
        seconds,
    )
    if len(case.train) > 1:
        stages["closed form"] = closed_form(case), {}
    errors, rows = {}, []
    for name, (stage, notes) in stages.items():
        answer, members = answers(stage, case)
        errors[name] = (
            10 * np.array([aligned_rmsd(x.astype(np.float64), case.test) for x in answer])[0]
        )
        errors[f"{name}, members"] = 10 * np.mean(
            [aligned_rmsd(x.astype(np.float64), case.test) for x in members], axis=0
        )
        rows.append({"method": name, **figures(answer, case.test, _cis(case)), **notes})
        rows.append({"method": f"{name}, members", **figures(members, case.test, _cis(case))})
    if len(case.train) > 1:
        answer = ridge(case, case.system(pretrained))
        errors["ridge"] = 10 * aligned_rmsd(answer[0].astype(np.float64), case.test)
        rows.append({"method": "ridge", **figures(answer, case.test, _cis(case))})
    for row in rows:
        own = "fine-tuned, members" if row["method"].endswith("members") else "fine-tuned"
        row["less_fine_tuned"] = _interval(errors[row["method"]] - errors[own])
    return rows


def _interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % bootstrap interval over frames."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (BOOTSTRAP, len(values))).mean(1)
    return [float(values.mean()), *(float(x) for x in np.percentile(means, (2.5, 97.5)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--residues", type=int, default=10, help="residues per bead of the artifact"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU seconds of each training")
    parser.add_argument("--proteins", nargs="+", default=list(PROTEINS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    chosen = {name: split for name, split in splits().items() if name in arguments.proteins}
    for name, split in chosen.items():
        for frames in (*FRAMES, len(split.train)):
            key = {"protein": name, "residues": arguments.residues, "frames": frames}
            if frames > len(split.train) or any(key.items() <= row.items() for row in rows):
                continue
            case = make_case(split, arguments.residues, frames)
            new = [key | row for row in rows_of(case, arguments.artifact, arguments.seconds)]
            rows += new
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
            for row in new:
                low = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*row["less_fine_tuned"])
                print(
                    f"{name} | {frames} frames | {row['method']} | {row['rmsd_angstrom']:.2f} | "
                    f"lDDT {row['lddt']:.3f} | less fine-tuned {low}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
