"""A finished training: its weights, its artifact, and the record that makes a rerun do nothing."""

import json
import os
import shutil
from datetime import date
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpcbackmap.errors import ConfigError, InputError, OutputError
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.base import Stage
from hpcbackmap.training.checkpoints import first_difference, versions, write_json

__all__ = ["finished_training", "publish_artifact", "save_weights"]

DONE = "done.json"
WATCHING = frozenset({"train.log_every", "train.checkpoint_every"})
"""Settings that change no weight."""


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Safetensors file, whole or not at all. Raises OutputError if it cannot be written."""
    temporary = path.with_name(path.name + ".part")
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, temporary)
    except SafetensorError as error:
        raise OutputError(f"{path}: {error}") from None
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def finished_training(folder: Path, identity: dict) -> dict | None:
    """Result of the finished training in ``folder``, None if there is none.

    Raises ConfigError, naming the first difference, if it was trained with other settings.
    """
    path = folder / DONE
    if not path.exists() or not (folder / "artifact").is_dir():
        return None
    try:
        record = json.loads(path.read_text())
        record["identity"], record["result"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged record of a finished training; remove it, and training ends anew"
        ) from None
    change = first_difference(record["identity"], identity, WATCHING)
    if change:
        raise ConfigError(
            f"{folder} holds a finished training with other settings, {change}; remove the folder to train "
            "anew, or give the campaign another workdir"
        )
    return record["result"]


def publish_artifact(
    folder: Path, stage: Stage, weights: Path, identity: dict, result: dict
) -> None:
    """`artifact/` with the weights of file ``weights``, then `done.json`; each appears whole."""
    stage.load_state_dict(load_file(weights))
    temporary, final = folder / "artifact.part", folder / "artifact"
    shutil.rmtree(temporary, ignore_errors=True)
    save_artifact(stage, temporary, _card(identity, result))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    write_json(folder / DONE, {"identity": identity, "result": result})


def _card(identity: dict, result: dict) -> dict:
    """What the model card says."""
    return {
        "stage": identity["stage"],
        "trained": date.today().isoformat(),
        "data": {"systems": identity["systems"], "split": identity["split"]},
        "training": identity["train"]
        | {key: result[key] for key in ("steps", "frames_seen", "minutes")},
        "metrics": {"validation": result["validation"], "best_step": result["best_step"]},
        "versions": versions(),
        "licence": "The weights are derived from the training data: its terms apply beside the package's.",
    }
