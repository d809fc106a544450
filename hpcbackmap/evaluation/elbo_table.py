"""The table of the ELBO: stage by stage and for the ladder, from nats of every held-out frame.

Shape legend: F frames, B beads, U latent units; rows of a table are the frames of all systems in order.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.bootstrap import block_numbers, mean_interval
from hpcbackmap.evaluation.record import JUDGED_BY
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.versions import versions
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.collapse import ACTIVE, active_units, collapse
from hpcbackmap.stages.ladder_volume import ladder_log_volume
from hpcbackmap.store.store import FrameStore

__all__ = ["SAMPLES", "Block", "StageNats", "elbo_lines", "elbo_record"]

log = logging.getLogger(__name__)

SAMPLES = 50
"""Noise draws behind the ELBO and the importance-weighted bound."""
UNITS = {
    "*_nats_per_frame": "nats per frame; densities in nm^-D on the fibre of D dimensions",
    "*_nats_per_particle": "the same per fine particle (ladder: per heavy atom)",
    "*_interval_95": "nats per frame; bootstrap over blocks of neighbouring frames",
    "log_volume": "nats per frame that put the rungs on the footing of the whole ladder's fibre",
    "active_units_per_bead": f"latent units of a bead with more than {ACTIVE} nats, mean over beads",
    "*_angstrom": "root mean square over particles and frames, not superposed",
}


class StageNats(NamedTuple):
    """One stage on F frames of one system.

    elbo, iwae, kl: nats per frame, float64 [F]. information: nats per unit, summed over frames [B, U].
    spread, error: see `spread_and_error`, nm^2 [F].
    """

    elbo: np.ndarray
    iwae: np.ndarray
    kl: np.ndarray
    information: np.ndarray
    spread: np.ndarray
    error: np.ndarray


class Block(NamedTuple):
    """Frames of one system, by their numbers in it [F]."""

    system: str
    frames: np.ndarray


class Rows(NamedTuple):
    """What all figures of one table share: system and bootstrap block of every row, ladders by name."""

    owner: np.ndarray
    blocks: np.ndarray
    ladders: dict[str, Ladder]
    bootstrap: int
    seed: int


def elbo_record(
    campaign: Campaign,
    store: FrameStore,
    stages: list[Stage[Any]],
    blocks: list[Block],
    judged: list[dict[str, StageNats]],
) -> dict[str, Any]:
    """Content of ``elbo.json``: one row a stage, and the ladder's total if every rung has a stage.

    judged: by stage name, one for each block.
    """
    names = [block.system for block in blocks]
    rows = _rows(store, blocks, campaign.evaluate.bootstrap, campaign.seed)
    owner, ladders = rows.owner, rows.ladders
    table, totals = [], np.zeros((3, len(owner)))
    for stage in stages:
        parts = [part[stage.name] for part in judged]
        elbo, iwae, kl = (_joined(parts, field) for field in ("elbo", "iwae", "kl"))
        totals += np.stack([elbo, iwae, kl])
        row = {"stage": stage.name, "kind": stage.kind, "variance": stage.variance}
        table.append(row | _figures(rows, elbo, iwae, kl, stage.fine) | _latents(parts, names))
        if table[-1]["collapse"]:
            log.warning("%s: %s collapse", stage.name, table[-1]["collapse"])
    complete = [stage.name for stage in stages] == campaign.rungs()
    return {
        "campaign": campaign.name,
        "campaign_digest": campaign.digest(),
        "what": f"{len(owner)} held-out frames of {len(ladders)} system(s), true coarse frames given",
        "samples": SAMPLES,
        "seed": campaign.seed,
        "bootstrap": rows.bootstrap,
        "units": UNITS,
        "store": store.digest,
        "versions": versions(*JUDGED_BY),
        "rows": table,
        "ladder": _ladder(rows, campaign.rungs(), *totals) if complete else None,
    }


def elbo_lines(record: dict[str, Any]) -> list[str]:
    """The record as a table for a terminal."""
    head = f"{'':<16}{'ELBO/frame':>12}{'95 %':>22}{'/particle':>11}{'IWAE':>12}{'KL':>10}"
    lines = [head + f"{'active units':>16}  collapse"]
    for row in [*record["rows"], *filter(None, [record["ladder"]])]:
        interval = row["elbo_interval_95"]
        shown = f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "–"
        line = f"{row['stage']:<16}{row['elbo_nats_per_frame']:>12.1f}{shown:>22}"
        line += f"{row['elbo_nats_per_particle']:>11.3f}{row['iwae_nats_per_frame']:>12.1f}"
        line += f"{row['kl_nats_per_frame']:>10.1f}"
        if "latent_units" in row:
            used = f"{row['active_units_per_bead']:.1f} of {row['latent_units']}"
            line += f"{used:>16}  {row['collapse'] or 'none'}"
        lines.append(line)
    if not record["ladder"]:
        lines.append("no total of the ladder: some rungs have no stage")
    lines.append(f"nats, lengths in nm; {record['what']}; IWAE of {record['samples']} samples")
    return lines


def _ladder(
    rows: Rows, rungs: list[str], elbo: np.ndarray, iwae: np.ndarray, kl: np.ndarray
) -> dict[str, Any]:
    """Sums of the stages less the constant that puts ladders with different rungs on one footing."""
    volume = {name: ladder_log_volume(ladder).sum() for name, ladder in rows.ladders.items()}
    volumes = np.array([volume[name] for name in rows.owner])
    record = {"stage": "ladder", "rungs": rungs, "log_volume": float(volumes.mean())}
    return record | _figures(rows, elbo - volumes, iwae - volumes, kl, "fg")


def _figures(
    rows: Rows, elbo: np.ndarray, iwae: np.ndarray, kl: np.ndarray, resolution: str
) -> dict[str, Any]:
    """Means over frames and their intervals, and the means of every system where there are several."""
    particles = {name: ladder.n_particles(resolution) for name, ladder in rows.ladders.items()}
    sizes = np.array([particles[name] for name in rows.owner])

    def means(chosen: np.ndarray) -> dict[str, Any]:
        return {
            "elbo_nats_per_frame": float(elbo[chosen].mean()),
            "elbo_nats_per_particle": float(elbo[chosen].sum() / sizes[chosen].sum()),
            "iwae_nats_per_frame": float(iwae[chosen].mean()),
            "iwae_nats_per_particle": float(iwae[chosen].sum() / sizes[chosen].sum()),
            "kl_nats_per_frame": float(kl[chosen].mean()),
            "frames": int(chosen.sum()),
        }

    found = means(np.ones(len(elbo), dtype=bool))
    found["elbo_interval_95"] = mean_interval(elbo, rows.blocks, rows.bootstrap, rows.seed)
    found["iwae_interval_95"] = mean_interval(iwae, rows.blocks, rows.bootstrap, rows.seed)
    if len(rows.ladders) > 1:
        found["systems"] = {name: means(rows.owner == name) for name in rows.ladders}
    return found


def _latents(parts: list[StageNats], names: list[str]) -> dict[str, Any]:
    """Use of the latents over all beads of all systems, spread of members, error of the mode."""
    sums: dict[str, np.ndarray] = {}
    frames: dict[str, int] = {}
    for name, part in zip(names, parts, strict=True):
        sums[name] = sums.get(name, 0) + part.information
        frames[name] = frames.get(name, 0) + len(part.elbo)
    means = np.concatenate([sums[name] / frames[name] for name in sums])
    active = float(active_units(torch.from_numpy(means)))
    spread, error = (float(np.sqrt(_joined(parts, key).mean())) for key in ("spread", "error"))
    return {
        "active_units_per_bead": active,
        "latent_units": means.shape[1],
        "member_spread_angstrom": 10 * spread,
        "mode_error_angstrom": 10 * error,
        "collapse": collapse(active, spread, error),
    }


def _joined(parts: list[StageNats], field: str) -> np.ndarray:
    return np.concatenate([getattr(part, field) for part in parts])


def _rows(store: FrameStore, blocks: list[Block], bootstrap: int, seed: int) -> Rows:
    """The frames of ``blocks``, system after system, rising within each."""
    frames: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        frames.setdefault(block.system, []).append(block.frames)
    joined = [np.concatenate(parts) for parts in frames.values()]
    sources = [[part[1:] for part in store.system(name).sources] for name in frames]
    return Rows(
        np.repeat(list(frames), [len(chosen) for chosen in joined]),
        np.concatenate(block_numbers(joined, sources)),
        {name: store.system(name).ladder for name in frames},
        bootstrap,
        seed,
    )
