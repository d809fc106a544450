"""Train one stage of a campaign: what surrounds the loop of `run.py`. docs/hpc.md lists the files it leaves."""

import json
import logging
import os
from pathlib import Path

import torch

from hpcbackmap import __version__
from hpcbackmap.config import Campaign, StageConfig, resolved_yaml
from hpcbackmap.errors import ConfigError
from hpcbackmap.frames.store import FrameStore, open_store
from hpcbackmap.stopping import StopSignals
from hpcbackmap.training.checkpoints import versions, write_json
from hpcbackmap.training.engine import engine_config
from hpcbackmap.training.init_from import artifact_digest
from hpcbackmap.training.lock import only_training
from hpcbackmap.training.publish import finished_training
from hpcbackmap.training.ranks import World, join, on_rank_zero, read_world
from hpcbackmap.training.run import Run

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(campaign: Campaign, stage_name: str, deepspeed_config: str | Path | None = None) -> dict:
    """Train one stage of a campaign to its end and publish its artifact; continues where a run stopped.

    Every rank calls it; ranks come from the launcher's variables. Returns ``stage``, ``steps``,
    ``minutes``, ``frames_seen``, ``skipped``, ``parameters``, ``best_step``, ``validation`` (loss, and
    log_likelihood and kl in nats per frame, of the exported weights; None without validation frames).
    A stage that is trained already returns at once.

    Raises ConfigError (contradicting settings, another training in the folder), InputError (store),
    ResourceError (ranks, GPUs), OutputError, and Stopped after SIGUSR1, SIGTERM or SIGINT once a
    checkpoint is written.
    """
    config = _config_of(campaign, stage_name)
    world = read_world(os.environ)
    settings = engine_config(stage_name, config.train, world.size, deepspeed_config)
    with StopSignals() as stop:
        device = join(world)
        store = open_store(campaign.path(campaign.store.path))
        folder = campaign.path("stages") / stage_name
        identity = _identity(campaign, stage_name, store)
        done = on_rank_zero(world, lambda: finished_training(folder, identity))
        if done is not None:
            log.info("%s is trained already (%s): nothing to do", stage_name, folder / "artifact")
            return done
        with only_training(folder, world):
            on_rank_zero(world, lambda: _write_settings(folder, campaign, settings))
            _announce(campaign, stage_name, world, device)
            run = Run(campaign, identity, store, folder, settings, world, device)
            try:
                run.to_the_end(stop)
            finally:
                run.recorder.close()
            return run.publish()


def _config_of(campaign: Campaign, stage_name: str) -> StageConfig:
    if stage_name not in campaign.stages:
        known = ", ".join(campaign.stages) or "none"
        raise ConfigError(f"no stage {stage_name!r} in this campaign; its stages: {known}")
    config = campaign.stages[stage_name]
    if config.artifact:
        raise ConfigError(
            f"stages.{stage_name}.artifact is given, so there is nothing to train; "
            "remove the key to train the stage"
        )
    return config


def _identity(campaign: Campaign, stage_name: str, store: FrameStore) -> dict:
    """What a training is: two with equal identity give equal weights (on one kind of device)."""
    config = campaign.stages[stage_name]
    systems = [store.system(name) for name in store.systems]
    return json.loads(
        json.dumps(
            {
                "stage": stage_name,
                "model": config.model.model_dump(),
                "systems": {
                    system.name: {"ladder": system.ladder.digest, "frames": system.n_frames}
                    for system in systems
                },
                "clusters": campaign.clusters() or None,
                "store": store.digest,
                "split": campaign.split.model_dump(),
                "budget_mb": campaign.store.budget_mb,
                "init_from": config.train.init_from and artifact_digest(config.train.init_from),
                "train": config.train.model_dump(exclude={"init_from"}),
            }
        )
    )


def _write_settings(folder: Path, campaign: Campaign, settings: dict) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "campaign.yaml").write_text(resolved_yaml(campaign))
    write_json(folder / "deepspeed.json", settings)


def _announce(campaign: Campaign, stage_name: str, world: World, device: torch.device) -> None:
    others = ", ".join(
        f"{name} {number}" for name, number in versions().items() if name != "hpcbackmap"
    )
    train = campaign.stages[stage_name].train
    log.info("hpcbackmap %s, %s", __version__, others)
    log.info("campaign %s (%s), stage %s", campaign.name, campaign.digest()[:12], stage_name)
    log.info(
        "%d rank(s) by %s, %s, %d thread(s) each, ZeRO %d, %s",
        world.size,
        world.launcher,
        torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch.get_num_threads(),
        train.zero_stage,
        train.precision,
    )
