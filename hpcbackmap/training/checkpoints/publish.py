"""A finished training: its weights, its artifact, and the record that makes a rerun do nothing."""

from datetime import date
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpcbackmap.config.conversion import current_identity
from hpcbackmap.runtime.differences import first_difference
from hpcbackmap.runtime.errors import ConfigError, DivergedError, InputError, OutputError
from hpcbackmap.runtime.files import commit, scratch_of, sha256_of, write_json
from hpcbackmap.runtime.parsing import json_record
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.base import Stage
from hpcbackmap.training.checkpoints.checkpoints import library_versions
from hpcbackmap.training.identity import WATCHING

__all__ = ["finished_training", "model_card", "publish_artifact", "save_weights"]

DONE = "done.json"


def save_weights(weights: dict[str, Tensor], path: Path) -> str:
    """Safetensors file, whole or not at all; returns its SHA-256. Raises OutputError if it cannot be."""
    scratch = scratch_of(path)
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, scratch)
        digest = sha256_of(scratch)
        commit(scratch, path)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return digest


def finished_training(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Result of the finished training in ``folder``, None if there is none.

    Raises ConfigError, naming the first difference, if it was trained with other settings.
    """
    path = folder / DONE
    if not path.exists() or not (folder / "artifact").is_dir():
        return None
    try:
        record = json_record(path, {"identity": dict, "result": dict})
    except InputError as error:
        raise InputError(
            f"{error}: the record of a finished training; remove it to end anew"
        ) from None
    change = first_difference(current_identity(record["identity"]), identity, WATCHING)
    if change:
        raise ConfigError(
            f"{folder} holds a finished training with other settings, {change}; remove the folder to train "
            "anew, or give the campaign another workdir"
        )
    found: dict[str, Any] | None = record["result"]
    return found


def publish_artifact(
    folder: Path, stage: Stage[Any], weights: Path, identity: dict[str, Any], result: dict[str, Any]
) -> None:
    """`artifact/` with the weights of file ``weights``, then `done.json`; each appears whole."""
    values = load_file(weights)
    faulty = [name for name, value in values.items() if not value.isfinite().all()]
    if faulty:
        raise DivergedError(f"{weights}: {faulty[0]} has values that are no numbers")
    stage.load_state_dict(values)
    save_artifact(stage, folder / "artifact", model_card(identity, result))
    write_json(folder / DONE, {"identity": identity, "result": result})


def model_card(identity: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """What the model card says.

    result: ``steps``, ``frames_seen``, ``minutes`` of the weights, their ``validation`` and ``best_step``.
    """
    return {
        "stage": identity["stage"],
        "trained": date.today().isoformat(),
        "data": {"systems": identity["systems"], "split": identity["split"]},
        "training": identity["train"]
        | {key: result[key] for key in ("steps", "frames_seen", "minutes")},
        "metrics": {"validation": result["validation"], "best_step": result["best_step"]},
        "versions": library_versions(),
        "licence": "The weights are derived from the training data: its terms apply beside the package's.",
    }
