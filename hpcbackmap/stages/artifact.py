"""A trained stage as users keep it: ``model.safetensors``, ``config.json``, ``MODEL_CARD.md``.

From format 2 on the configuration has the SHA-256 of the weights and of itself (but for the card, which people
may write on): what is loaded is what was trained.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from hpcbackmap.config.campaign import KINDS
from hpcbackmap.config.conversion import current_model, recorded_model
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError, OutputError
from hpcbackmap.runtime.files import commit, read_regular, reason, scratch_of, sha256_of
from hpcbackmap.runtime.parsing import json_digest, json_record, require_keys
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.build import new_stage

__all__ = [
    "build_described",
    "load_artifact",
    "read_artifact_config",
    "save_artifact",
    "stage_description",
]

log = logging.getLogger(__name__)

FORMAT = 2
HASHED_SINCE = 2
WEIGHTS, CONFIG = "model.safetensors", "config.json"
KEYS = {
    "stage": str,
    "fine": str,
    "coarse": str,
    "model": dict,
    "ladder": (dict, type(None)),
    "card": dict,
}


def save_artifact(stage: Stage[Any], folder: str | Path, card: dict[str, Any]) -> Path:
    """Write the artifact; ``card`` holds what a reader should know (data, metrics, licence, versions).

    The folder appears whole or not at all. Raises OutputError where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    scratch = scratch_of(folder)
    config: dict[str, Any] = {"format": FORMAT, **stage_description(stage), "card": card}
    config = json.loads(json.dumps(config))
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in stage.state_dict().items()}
        save_file(weights, scratch / WEIGHTS)
        config["sha256"] = {WEIGHTS: sha256_of(scratch / WEIGHTS), CONFIG: _own_digest(config)}
        (scratch / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        (scratch / "MODEL_CARD.md").write_text(_card_text(config, weights))
        for path in scratch.iterdir():
            path.chmod(0o644)
        shutil.rmtree(folder, ignore_errors=True)
        commit(scratch, folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{folder}: cannot write the artifact: {getattr(error, 'strerror', None) or error}"
        ) from None
    return folder


def stage_description(stage: Stage[Any]) -> dict[str, Any]:
    """Everything but the weights: name, resolutions, model, and the ladder of a stage of one molecule."""
    return {
        "stage": stage.name,
        "fine": stage.fine,
        "coarse": stage.coarse,
        "model": stage.config.model_dump(),
        "ladder": stage.ladder and stage.ladder.to_dict(),
    }


def build_described(description: dict[str, Any]) -> Stage[Any]:
    """A stage of this description, its weights yet to be loaded."""
    name, fine, coarse = (description[key] for key in ("stage", "fine", "coarse"))
    model = recorded_model(current_model(description["model"], fine, f"stage {name}"))
    ladder = description["ladder"] and Ladder.from_dict(description["ladder"])
    return new_stage(fine, coarse, KINDS[model["kind"]].model_validate(model), ladder)


def read_artifact_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of an artifact. Raises InputError if it is none, damaged, or of a newer format."""
    path = Path(folder) / CONFIG
    try:
        config = json_record(path, {"format": int})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no artifact here: {error.strerror}") from None
    if config["format"] > FORMAT:
        raise InputError(
            f"{folder}: artifact format {config['format']}; this version reads up to {FORMAT}, "
            "update hpcbackmap"
        )
    require_keys(config, KEYS, str(path))
    if config["format"] < HASHED_SINCE and "sha256" not in config:
        return config
    require_keys(config, {"sha256": dict}, str(path))
    require_keys(config["sha256"], {WEIGHTS: str, CONFIG: str}, f"{path}: sha256")
    if config["sha256"][CONFIG] != _own_digest(config):
        raise InputError(f"{path}: damaged, its SHA-256 is not the one it was written with")
    return config


def load_artifact(folder: str | Path) -> Stage[Any]:
    """The trained stage, in evaluation mode, on the CPU. Needs no DeepSpeed and unpickles nothing.

    Raises InputError for weights or a configuration that are not those that were written; an artifact of
    format 1 has no SHA-256, which is told.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = read_artifact_config(folder)
    path = Path(folder) / WEIGHTS
    try:
        data = read_regular(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    hashes = config.get("sha256")
    if hashes is None:
        log.warning("%s: of format 1, without a SHA-256: damage would not be noticed", folder)
    elif hashes[WEIGHTS] != hashlib.sha256(data).hexdigest():
        raise InputError(f"{path}: damaged, its SHA-256 is not the one it was written with")
    try:
        stage = build_described(config)
        stage.load_state_dict(load(data), strict=True)
    except InputError as error:
        raise InputError(f"{folder}/{CONFIG}: {error}") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(f"{folder}: damaged artifact: {reason(error)}") from None
    faulty = [name for name, value in stage.state_dict().items() if not value.isfinite().all()]
    if faulty:
        raise InputError(f"{path}: weights {faulty[0]} are not all numbers")
    return stage.eval()


def _own_digest(config: dict[str, Any]) -> str:
    """Of what a configuration says of the stage."""
    return json_digest({key: config[key] for key in ("format", *KEYS) if key != "card"})


def _card_text(config: dict[str, Any], weights: dict[str, Any]) -> str:
    count = sum(tensor.numel() for tensor in weights.values())
    lines = [
        f"# Stage {config['stage']}",
        "",
        f"A `{config['model']['kind']}` stage of hpcbackmap: {config['coarse']} to {config['fine']}, "
        f"{count:,} parameters. Samples are drawn from the prior, given the coarse positions alone.",
        "",
    ]
    for key, value in config["card"].items():
        text = json.dumps(value, indent=1) if isinstance(value, dict | list) else str(value)
        body = ["```json", text, "```"] if isinstance(value, dict | list) else [text]
        lines += [f"## {key.replace('_', ' ').capitalize()}", "", *body, ""]
    return "\n".join(lines)
