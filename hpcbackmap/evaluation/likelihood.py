"""The ELBO of every stage and of the whole ladder on held-out frames, into ``elbo.json``.

Each stage reads the true coarse frame: the terms of the k-step ELBO are those of its Markov steps. All
numbers are nats per frame, densities on the fibre {fine : mapping(fine) = coarse} with lengths in nm.

Shape legend: F frames of a block, K noise draws, N fine particles, B beads, U latent units.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.elbo_table import SAMPLES, Block, StageNats, elbo_record
from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.evaluation.record import write_record
from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, InputError
from hpcbackmap.runtime.mpi import Comm, raise_together
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, System, collate
from hpcbackmap.stages.centring import about, centre_of
from hpcbackmap.stages.collapse import spread_and_error
from hpcbackmap.stages.ladder_volume import importance_bound
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.store.split import FrameRange, split_frames
from hpcbackmap.store.store import FrameStore, open_store

__all__ = ["evaluate_elbo", "stage_nats"]

log = logging.getLogger(__name__)

BLOCK_ATOMS = 16_000
"""Heavy atoms of the frames in a block; it bounds the memory of a pass."""


def evaluate_elbo(campaign: Campaign, comm: Comm) -> dict[str, Any]:
    """ELBO, importance-weighted bound, KL and use of the latents, stage by stage and for the ladder.

    The frames are the held-out test frames, at most ``evaluate.max_frames``. Collective: ranks share the
    blocks of frames, every rank returns the whole record, rank 0 writes ``elbo.json``; numbers do not
    depend on the number of ranks. The ladder is summed only if every rung has a stage.
    Raises InputError for missing stores, stages or test frames and for a stage without finite numbers,
    ConfigError for a campaign without stages.
    """
    store = open_store(campaign.store_place())
    stages = _load_stages(campaign, _device(comm))
    blocks = _blocks(store, _held_out(store, campaign))
    judged, record, error = [], None, None
    try:
        for number in range(comm.rank, len(blocks), comm.size):
            judged.append((number, _judge(store, stages, blocks[number], campaign.seed)))
            log.info("ELBO of block %d of %d", number + 1, len(blocks))
    except HpcbackmapError as failure:
        error = failure
    raise_together(comm, error)
    gathered = comm.gather(judged)
    if comm.rank == 0:
        try:
            parts = sorted((part for share in gathered for part in share), key=lambda part: part[0])
            record = elbo_record(campaign, store, stages, blocks, [part for _, part in parts])
            write_record(record, campaign.path("elbo.json"))
        except HpcbackmapError as failure:
            error = failure
    raise_together(comm, error)
    found: dict[str, Any] = comm.bcast(record)
    return found


def stage_nats(
    stage: Stage[Any],
    fine: Tensor,
    coarse: Tensor,
    system: System,
    frames: list[int],
    seed: int,
    samples: int = SAMPLES,
) -> StageNats:
    """A stage on frames of one system; fine [F, N, 3], coarse [F, B, 3] nm.

    frames: global numbers, which key the noise. The ELBO is the mean of ``samples`` log weights.
    """
    beads = coarse.shape[1]

    def noise(what: str, number: int, width: int) -> Tensor:
        draw = frame_noise(seed, f"{stage.name}/{what}", frames, number, beads, width)
        return torch.from_numpy(draw).to(coarse)

    draws = samples if stage.elbo_noise else 1
    with torch.no_grad():
        log_weights = torch.stack(
            [
                stage.log_weight(fine, coarse, system, noise("elbo", k, stage.elbo_noise))[:, 0]
                for k in range(draws)
            ]
        ).double()
        information = stage.information(fine, coarse, system).double()
        members = (
            noise("elbo/members", 0, stage.noise_width),
            noise("elbo/members", 1, stage.noise_width),
        )
        spread, error = spread_and_error(stage, fine, coarse, system, members)
    values = (
        log_weights.mean(0),
        importance_bound(log_weights),
        information.sum((1, 2)),
        information.sum(0),
        spread.double(),
        error.double(),
    )
    return StageNats(*(value.cpu().numpy() for value in values))


def _device(comm: Comm) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", comm.local_rank % torch.cuda.device_count())


def _load_stages(campaign: Campaign, device: torch.device) -> list[Stage[Any]]:
    """The trained stages of the campaign, fine to coarse."""
    if not campaign.stages:
        raise ConfigError("stages: the campaign has none, so there is no ELBO to evaluate")
    stages = []
    for rung in campaign.rungs():
        if rung not in campaign.stages:
            continue
        given = campaign.stages[rung].artifact
        folder = Path(given) if given else campaign.path(f"stages/{rung}/artifact")
        if not folder.is_dir():
            raise InputError(f"{folder}: no trained stage here; train {rung} first")
        stage = load_artifact(folder)
        try:
            stages.append(stage.at_rung(rung).to(device))
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
    return stages


def _held_out(store: FrameStore, campaign: Campaign) -> list[Block]:
    ranges = split_frames(store, campaign.split)["test"]
    if not ranges:
        raise InputError(f"{store.path}: the split holds out no test frames; set split.test")
    return _thinned(ranges, campaign.evaluate.max_frames)


def _thinned(ranges: list[FrameRange], most: int | None) -> list[Block]:
    """At most ``most`` evenly spaced frames over all ranges, at least one of each."""
    total = sum(part.stop - part.start for part in ranges)
    parts = []
    for part in ranges:
        count = part.stop - part.start
        share = count if most is None else min(count, max(1, count * most // total))
        chosen = np.linspace(part.start, part.stop - 1, share).round().astype(np.int64)
        parts.append(Block(part.system, chosen))
    return parts


def _blocks(store: FrameStore, parts: list[Block]) -> list[Block]:
    """The frames in pieces that fit into one pass."""
    blocks = []
    for system, frames in parts:
        size = max(1, BLOCK_ATOMS // store.system(system).ladder.topology.n_atoms)
        blocks += [Block(system, frames[at : at + size]) for at in range(0, len(frames), size)]
    return blocks


def _judge(
    store: FrameStore, stages: list[Stage[Any]], block: Block, seed: int
) -> dict[str, StageNats]:
    stored = store.system(block.system)
    numbers = [int(number) for number in stored.first_frame + block.frames]
    nats = {}
    for stage in stages:
        system = collate([stage.describe(stored.ladder)])
        device = next(stage.parameters()).device
        fine, coarse = (
            read_frames(store, block.system, resolution, block.frames)
            for resolution in (stage.fine, stage.coarse)
        )
        centre = centre_of(coarse)
        shown, given = (torch.from_numpy(about(x, centre)).to(device) for x in (fine, coarse))
        nats[stage.name] = stage_nats(stage, shown, given, system.to(device), numbers, seed)
        _require_finite(nats[stage.name], stage.name, block)
    return nats


def _require_finite(nats: StageNats, stage: str, block: Block) -> None:
    bad = ~(np.isfinite(nats.elbo) & np.isfinite(nats.iwae) & np.isfinite(nats.kl))
    if bad.any():
        raise InputError(
            f"stage {stage}: its ELBO of frame {block.frames[bad][0]} of system {block.system} is not a "
            "finite number; look at that frame with `hpcbackmap export`, or train the stage anew"
        )
