"""The rows of a comparison: answers of every method for the same beads, and their figures.

A row's record: ``metrics`` (heavy atoms) and ``calpha`` (C-alpha atoms), each metric with its value and 95 %
bootstrap interval; ``energy``; for a ladder also ``training`` (sums over its stages), ``elbo`` and the CPU
seconds of one structure.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from case import Case, Rung
from ladders import STEPS
from relaxation import Relaxation

from hpcbackmap.config.campaign import Campaign, EvaluateConfig
from hpcbackmap.evaluation.baselines import (
    bead_centre,
    cis_links,
    close_trace,
    nearest_training_frame,
)
from hpcbackmap.evaluation.bootstrap import Totals, block_numbers, summarise
from hpcbackmap.evaluation.intermediate import RUNG_METRICS, judge_rung
from hpcbackmap.evaluation.likelihood import evaluate_elbo
from hpcbackmap.metrics.judge import METRICS, judge
from hpcbackmap.runtime.mpi import get_comm
from hpcbackmap.runtime.shipped_weights import shipped_artifact

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from regression import REGRESSIONS, KernelRidge

__all__ = ["ROWS", "compute_row", "frame_blocks", "judge_answers"]

Rows = dict[str, np.ndarray]

ENERGY_FRAMES = 20
BOOTSTRAP = 1000
FRAMES_AT_ONCE = 8
RELAXED = (
    *("truth", "kernel_ridge", "one_step", "two_step", "three_step", "two_step_shipped"),
    "kernel_ridge_closed_then_shipped",
)
"""Rows whose energies are computed; a training frame has a real structure's energy anyway."""
LADDERS = {
    **{
        name: (steps, False)
        for name, steps in zip(("one_step", "two_step", "three_step"), STEPS, strict=True)
    },
    "two_step_from_shipped": (2, True),
}
"""Steps, and whether the heavy-atom stage begins with the shipped weights."""
ONE = "_one_answer"
"""Ending of rows that are the one answer of a ladder instead of its members."""
MEAN, AVERAGED = "_mean", 20
"""Ending of rows that are the mean positions of so many members: no structure, but what is known of places."""
REGRESSION_ROWS = {model.name.replace(" ", "_").replace("-", "_"): model for model in REGRESSIONS}


ROWS = (
    *("truth", "bead_centre", "nearest_training_frame"),
    *REGRESSION_ROWS,
    *(f"{name}_closed" for name in REGRESSION_ROWS),
    *(name + ending for name in LADDERS for ending in ("", ONE, MEAN)),
    *("kernel_ridge_closed_then_ca_fg", "two_step_shipped", f"two_step_shipped{ONE}"),
    *("kernel_ridge_closed_then_shipped", f"kernel_ridge_closed_then_shipped{ONE}"),
)
"""Rows of a table, in order."""


def compute_row(case: Case, name: str) -> dict:
    """Record of one row of `ROWS`."""
    began = time.process_time()
    if name in LADDERS:
        record, levels = _ladder_row(case, *LADDERS[name])
    elif name.removesuffix(ONE) in LADDERS:
        campaign, _ = case.train(*LADDERS[name.removesuffix(ONE)])
        record, levels = {}, case.members(campaign, one=True)
    elif name.removesuffix(MEAN) in LADDERS:
        campaign, _ = case.train(*LADDERS[name.removesuffix(MEAN)])
        drawn = case.members(campaign, count=AVERAGED)
        record, levels = {}, {key: x.mean(1, keepdims=True) for key, x in drawn.items()}
    else:
        record, levels = {}, _answers(case, name)
    if "fg" in levels:
        record["metrics"], _ = judge_answers(case, levels["fg"], name == "truth")
        levels.setdefault("ca", case.ladder.coarsen(levels["fg"])["ca"])
        if name in RELAXED and case.budget.energy:
            record["energy"] = _energies(case, levels["fg"][:, 0])
    if name != "truth":
        record["calpha"] = _judge_calpha(case, levels["ca"])
    return record | {"cpu_seconds_of_the_row": time.process_time() - began}


def _answers(case: Case, name: str) -> dict[str, np.ndarray]:
    """Positions by resolution, [F, M, N, 3]."""
    beads = case.read(case.coarsest)
    if name == "truth":
        return {"fg": case.read("fg")[:, None]}
    if name == "bead_centre":
        return {"fg": bead_centre(case.ladder, beads)[:, None]}
    if name == "nearest_training_frame":
        ranges = case.ranges["train"]
        return {"fg": nearest_training_frame(case.store, ranges, case.protein.name, beads)[:, None]}
    if name in REGRESSION_ROWS:
        return {"fg": _regressed(case, REGRESSION_ROWS[name], "fg", beads)[:, None]}
    one = name.endswith(ONE)
    name = name.removesuffix(ONE)
    if name == "two_step_shipped":
        _, rungs = case.train(2)
        stages = [rungs[1].artifact, str(shipped_artifact())]
        return case.draw(stages, case.ladder, beads[:, None], one)
    if name.startswith("kernel_ridge_closed_then"):
        trace = _closed(case, KernelRidge, beads)[:, None]
        fine = shipped_artifact() if name.endswith("shipped") else case.train(2)[1][0].artifact
        return case.draw([str(fine)], case.ladder, trace, one) | {"ca": trace}
    return {"ca": _closed(case, REGRESSION_ROWS[name.removesuffix("_closed")], beads)[:, None]}


def _regressed(case: Case, model: type, resolution: str, beads: np.ndarray) -> np.ndarray:
    training = [case.read(r, case.training_frames) for r in (case.coarsest, resolution)]
    fitted = model().fit(*training, case.training_blocks)
    return fitted.predict(beads).astype(np.float32)


def _closed(case: Case, model: type, beads: np.ndarray) -> np.ndarray:
    cis = cis_links(case.ladder.topology, case.read("ca", case.training_frames))
    return close_trace(case.ladder, _regressed(case, model, "ca", beads), beads, cis)


def _ladder_row(case: Case, steps: int, shipped: bool) -> tuple[dict, dict[str, np.ndarray]]:
    campaign, rungs = case.train(steps, shipped)
    began = time.process_time()
    levels = case.members(campaign)
    drawn = levels["fg"].shape[0] * levels["fg"].shape[1]
    record = {
        "rungs": [rung.name for rung in rungs],
        "training": _training(rungs),
        "cpu_seconds_per_structure": (time.process_time() - began) / drawn,
        "elbo": _elbo(campaign, case.budget.frames),
    }
    return record, levels


def _training(rungs: list[Rung]) -> dict:
    """Costs of a ladder: sums over its stages; memory is that of the largest."""
    costs = [rung.cost for rung in rungs]
    total = {
        key: sum(cost[key] for cost in costs)
        for key in ("wall_seconds", "cpu_seconds", "budget_cpu_seconds", "parameters")
    }
    largest = {key: max(cost[key] for cost in costs) for key in ("peak_mb", "libraries_peak_mb")}
    return total | largest | {"steps": {rung.name: rung.cost["steps"] for rung in rungs}}


def _elbo(campaign: Campaign, frames: int) -> dict:
    thinned = campaign.model_copy(update={"evaluate": EvaluateConfig(max_frames=frames)})
    record = evaluate_elbo(thinned, get_comm())
    return {key: record[key] for key in ("rows", "ladder", "units", "samples")}


def judge_answers(case: Case, answers: np.ndarray, truth: bool = False) -> tuple[dict, Rows]:
    """Figures of heavy atoms [F, M, A, 3] and the rows per frame behind them.

    truth: the answers are the truth, which has the values of its own only.
    """
    metrics = [item for item in METRICS if not (truth and item.compares)]
    beads, topology = case.read(case.coarsest), case.ladder.topology

    def measure(real, made, at):
        return judge(topology, real, made, case.ladder, beads[at])

    return _summary(case, answers, metrics, "fg", measure)


def _judge_calpha(case: Case, answers: np.ndarray) -> dict:
    beads = case.read(case.coarsest)

    def measure(real, made, at):
        return judge_rung(case.ladder, "ca", real, made, beads[at])

    return _summary(case, answers, RUNG_METRICS, "ca", measure)[0]


def _summary(
    case: Case, answers: np.ndarray, metrics, resolution: str, measure: Callable
) -> tuple[dict, Rows]:
    """Answers [F, M, N, 3] judged a few frames at a time by ``measure(truth, answers, slice)``."""
    truth, totals, numbers = case.read(resolution), Totals(metrics), frame_blocks(case)
    parts = []
    for start in range(0, len(truth), FRAMES_AT_ONCE):
        at = slice(start, start + FRAMES_AT_ONCE)
        parts.append(measure(truth[at], answers[at], at))
        totals.add(parts[-1], case.protein.name, numbers[at])
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return summarise(totals, int(numbers.max()) + 1, BOOTSTRAP, seed=0), rows


def frame_blocks(case: Case) -> np.ndarray:
    """Block of the bootstrap that each judged frame is in, [F]."""
    if not case.protein.ordered:
        return np.arange(len(case.frames))
    sources = case.store.system(case.protein.name).sources
    return block_numbers([case.frames], [[part[1:] for part in sources]])[0]


def _energies(case: Case, structures: np.ndarray) -> dict | str:
    """kJ/mol per residue of evenly spaced structures; median with its bootstrap interval."""
    try:
        relaxation = Relaxation(case.ladder.topology, case.read("fg")[0])
    except ImportError as error:
        return f"skipped: {error}; pip install hpcbackmap[examples]"
    count = min(ENERGY_FRAMES, len(structures))
    chosen = np.linspace(0, len(structures) - 1, count).round().astype(int)
    energies = relaxation.energies(structures[chosen]) / case.protein.residues
    known = energies[np.isfinite(energies)]
    record = {"frames": count, "failed": int(count - len(known))}
    record["all"] = [value if np.isfinite(value) else None for value in energies.tolist()]
    if not len(known):
        return record | {"median_kj_per_mol_per_residue": None, "interval_95": None}
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(known, size=(BOOTSTRAP, len(known))), axis=1)
    interval = [float(x) for x in np.percentile(medians, (2.5, 97.5))]
    return record | {
        "median_kj_per_mol_per_residue": float(np.median(known)),
        "interval_95": interval,
    }
