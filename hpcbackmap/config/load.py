"""Reading a campaign file: YAML, dotted overrides, paths, and errors that name the key.

`load_campaign` reads the file, applies overrides (``stages.ca-fg.train.max_steps=200``) and resolves relative
paths against its folder. Unknown keys are errors that name the nearest valid key.
"""

import difflib
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hpcbackmap.config.campaign import KINDS, Campaign, with_paths
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.runtime.parsing import not_printable, yaml_value
from hpcbackmap.runtime.shipped_weights import SHIPPED, shipped_artifact

__all__ = ["load_campaign", "resolved_yaml"]


def load_campaign(path: str | Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read a campaign; ``overrides`` are ``dotted.key=value`` strings with YAML values.

    Raises ConfigError naming the file and the key.
    """
    path = Path(path)
    for text in (str(path.absolute()), *overrides):
        found = not_printable(text)
        if found:
            raise ConfigError(
                f"{text[:80]!r} has the character {found}: job scripts and reports could not name it; rename it"
            )
    try:
        record = yaml_value(read_regular(path).decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: a campaign is a mapping of keys to values")
    for override in overrides:
        _apply_override(record, override)
    try:
        campaign = Campaign.model_validate(record)
        return _resolve_paths(campaign, path.resolve().parent)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: a value that contains itself, or brackets too deep") from None


def resolved_yaml(campaign: Campaign) -> str:
    """The campaign with every default written out."""
    found: str = yaml.safe_dump(json.loads(campaign.model_dump_json()), sort_keys=False)
    return found


def _apply_override(record: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: write dotted.key=value")
    *parents, leaf = key.split(".")
    here: Any = record
    for depth, parent in enumerate(parents):
        here = here.setdefault(parent, {}) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[: depth + 1])} has no keys"
            )
    try:
        here[leaf] = yaml_value(value)
    except ValueError:
        raise ConfigError(f"override {override!r}: {value!r} is not a YAML value") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        location = [str(part) for part in item["loc"] if part not in KINDS]
        key = ".".join(location) or "campaign"
        if item["type"] == "extra_forbidden":
            valid = _fields_at(item["loc"][:-1])
            close = difflib.get_close_matches(location[-1], valid, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; valid here: {', '.join(valid)}"
            lines.append(f"unknown key {key!r}{hint}")
        else:
            lines.append(f"{key}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """Field names of the model at a pydantic error location."""
    models: list[Any] = [Campaign]
    for part in location:
        following: list[Any] = []
        for model in models:
            if isinstance(part, int):
                following.append(model)
            elif part in KINDS:
                following += [model] if model.model_fields["kind"].default == part else []
            elif part in getattr(model, "model_fields", {}):
                following += _models_in(model.model_fields[part].annotation)
            else:
                following.append(model)
        models = following
    return sorted({name for model in models for name in getattr(model, "model_fields", {})})


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _resolve_paths(campaign: Campaign, folder: Path) -> Campaign:
    def resolve(text: str) -> str:
        return text if "://" in text or Path(text).is_absolute() else str(folder / text)

    record = campaign.model_dump()
    for name, stage in record["stages"].items():
        for where, key in ((stage, "artifact"), (stage["train"], "init_from")):
            if where[key] == SHIPPED:
                where[key] = str(shipped_artifact(name, stage["model"]["kind"]))
    return Campaign.model_validate(with_paths(record, resolve))
