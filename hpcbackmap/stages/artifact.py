"""A trained stage as users keep it: ``model.safetensors``, ``config.json``, ``MODEL_CARD.md``."""

import json
import shutil
from pathlib import Path

from hpcbackmap.config.campaign import KINDS
from hpcbackmap.config.conversion import current_model
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError, OutputError
from hpcbackmap.runtime.files import commit, scratch_of
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.build import new_stage

__all__ = [
    "build_described",
    "load_artifact",
    "read_artifact_config",
    "save_artifact",
    "stage_description",
]

FORMAT = 1


def save_artifact(stage: Stage, folder: str | Path, card: dict) -> Path:
    """Write the artifact; ``card`` holds what a reader should know (data, metrics, licence, versions).

    The folder appears whole or not at all. Raises OutputError where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    scratch = scratch_of(folder)
    config = {"format": FORMAT, **stage_description(stage), "card": card}
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in stage.state_dict().items()}
        save_file(weights, scratch / "model.safetensors")
        (scratch / "config.json").write_text(json.dumps(config, indent=1) + "\n")
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


def stage_description(stage: Stage) -> dict:
    """Everything but the weights: name, resolutions, model, and the ladder of a stage of one molecule."""
    return {
        "stage": stage.name,
        "fine": stage.fine,
        "coarse": stage.coarse,
        "model": stage.config.model_dump(),
        "ladder": stage.ladder and stage.ladder.to_dict(),
    }


def build_described(description: dict) -> Stage:
    """A stage of this description, its weights yet to be loaded."""
    name, fine, coarse = (description[key] for key in ("stage", "fine", "coarse"))
    model = current_model(description["model"], fine, f"stage {name}")
    ladder = description["ladder"] and Ladder.from_dict(description["ladder"])
    return new_stage(fine, coarse, KINDS[model["kind"]].model_validate(model), ladder)


def read_artifact_config(folder: str | Path) -> dict:
    """``config.json`` of an artifact. Raises InputError if it is none, or of a newer format."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
        version = int(config["format"])
    except OSError as error:
        raise InputError(f"{path}: no artifact here: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not an artifact configuration") from None
    if version > FORMAT:
        raise InputError(
            f"{folder}: artifact format {version}; this version reads up to {FORMAT}, update hpcbackmap"
        )
    return config


def load_artifact(folder: str | Path) -> Stage:
    """The trained stage, in evaluation mode, on the CPU. Needs no DeepSpeed and unpickles nothing."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_artifact_config(folder)
    try:
        stage = build_described(config)
        stage.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=True)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder}: damaged artifact: {' '.join(str(error).split())[:200]}"
        ) from None
    return stage.eval()


def _card_text(config: dict, weights: dict) -> str:
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
