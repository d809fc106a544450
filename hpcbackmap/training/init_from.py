"""Fine-tuning: a training that starts from the weights of an artifact."""

from pathlib import Path
from typing import Any

from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage

__all__ = ["start_from"]


def start_from(folder: str | Path, stage: Stage[Any]) -> bool:
    """Copy the weights and scales of an artifact into ``stage``; True if those by heart are yet to calibrate.

    Settings of the loss may differ, the network may not; but a stage that learns one molecule may start from
    one that has learned many. Raises ConfigError that names what differs for an
    artifact of another rung or model, InputError if there is none.
    """
    trained = load_artifact(folder)
    where = f"stages.{stage.name}.train.init_from: {folder}"
    try:
        trained.at_rung(stage.name)
    except InputError as error:
        raise ConfigError(f"{where} {error}") from None
    if trained.kind != stage.kind:
        raise ConfigError(f"{where} is a {trained.kind} stage, this one is {stage.kind}")
    given, wanted = _shapes(trained), _shapes(stage)
    added = stage.by_heart & (wanted.keys() - given.keys())
    same = given == {key: shape for key, shape in wanted.items() if key not in added}
    if not same or (trained.ladder and _molecule(trained) != _molecule(stage)):
        theirs, ours = trained.config.model_dump(), stage.config.model_dump()
        keys = [key for key in ours if ours[key] != theirs[key]]
        change = ", ".join(f"model.{key} is {theirs[key]} there, {ours[key]} here" for key in keys)
        raise ConfigError(f"{where} has another network: {change or 'it fits another molecule'}")
    stage.load_state_dict(trained.state_dict(), strict=not added)
    return bool(added)


def _molecule(stage: Stage[Any]) -> str | None:
    """Digest of the one molecule that a stage fits."""
    return None if stage.ladder is None else stage.ladder.rung_digest(stage.coarse)


def _shapes(stage: Stage[Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in stage.state_dict().items()}
