"""What a training is: two with equal identity give equal weights (on one kind of device)."""

import json
from pathlib import Path
from typing import Any

from hpcbackmap.config.campaign import CHANGE_NO_WEIGHT, Campaign
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import sha256_of
from hpcbackmap.store.store import FrameStore

__all__ = ["WATCHING", "settled_identity", "training_identity"]

WATCHING = frozenset(f"train.{key}" for key in CHANGE_NO_WEIGHT)
"""Parts of an identity that decide no weight."""


def training_identity(campaign: Campaign, stage: str, store: FrameStore) -> dict[str, Any]:
    """Identity of the training of ``stage``. Raises InputError if its `init_from` cannot be read."""
    systems = [store.system(name) for name in store.systems]
    return settled_identity(campaign, stage, store) | {
        "systems": {
            system.name: {"ladder": system.ladder.digest, "frames": system.n_frames}
            for system in systems
        }
    }


def settled_identity(campaign: Campaign, stage: str, store: FrameStore) -> dict[str, Any]:
    """The same without the systems, whose ladders take time to read; the store's digest covers them."""
    config = campaign.stages[stage]
    settled = {
        "stage": stage,
        "model": config.model.model_dump(),
        "clusters": campaign.clusters() or None,
        "store": store.digest,
        "split": campaign.split.model_dump(),
        "budget_mb": campaign.store.budget_mb,
        "init_from": config.train.init_from and _weights_digest(config.train.init_from),
        "train": config.train.model_dump(exclude={"init_from"}),
    }
    found: dict[str, Any] = json.loads(json.dumps(settled))
    return found


def _weights_digest(folder: str | Path) -> str:
    """SHA-256 of an artifact's weights."""
    path = Path(folder) / "model.safetensors"
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: no artifact to start from: {error.strerror or error}") from None
