"""Train one stage of a campaign: what surrounds the loop of `run.py`. docs/hpc.md lists the files it leaves."""

import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hpcbackmap.config.campaign import Campaign, StageConfig
from hpcbackmap.config.load import resolved_yaml
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.runtime.files import write_json, write_whole
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.store.store import open_store
from hpcbackmap.training.checkpoints.publish import finished_training
from hpcbackmap.training.conclusion import conclude
from hpcbackmap.training.engine import engine_config
from hpcbackmap.training.failure_messages import explained
from hpcbackmap.training.identity import training_identity
from hpcbackmap.training.ranks.lock import only_training
from hpcbackmap.training.ranks.rendezvous import join, reconnect
from hpcbackmap.training.ranks.watch import watched
from hpcbackmap.training.ranks.world import on_rank_zero, read_world
from hpcbackmap.training.records.start import announce, start_record
from hpcbackmap.training.run import Run

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(
    campaign: Campaign, stage_name: str, deepspeed_config: str | Path | None = None
) -> dict[str, Any]:
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
    folder = campaign.path("stages") / stage_name
    with ExitStack() as held:
        stop = held.enter_context(StopSignals())
        held.enter_context(explained(folder / "checkpoints"))
        device = join(world, f"{campaign.name}/{stage_name}")
        held.enter_context(watched(world, reconnect))
        store = open_store(campaign.store_place())
        identity = training_identity(campaign, stage_name, store)
        done = on_rank_zero(world, lambda: finished_training(folder, identity))
        if done is not None:
            log.info("%s is trained already (%s): nothing to do", stage_name, folder / "artifact")
            return done
        with only_training(folder, world):
            on_rank_zero(world, lambda: _write_settings(folder, campaign, settings))
            about = start_record(campaign, stage_name, world, device)
            announce(about)
            run = Run(campaign, identity, store, folder, settings, world, device, about)
            try:
                run.to_the_end(stop)
            finally:
                run.recorder.close()
            return conclude(run)


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


def _write_settings(folder: Path, campaign: Campaign, settings: dict[str, Any]) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_whole(folder / "campaign.yaml", resolved_yaml(campaign))
    write_json(folder / "deepspeed.json", settings)
