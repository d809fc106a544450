"""Settings of former versions in today's words, for campaigns, artifacts and records of trainings."""

import logging
from typing import Any

__all__ = ["current_identity", "current_model", "recorded_model"]

log = logging.getLogger(__name__)

OF_TRACE = ("neighbours", "rounds", "draws_weight")
"""Keys that `cgvae` had for C-alpha traces of many proteins."""
KEPT_BY_TRACE = ("width", "layers", "neighbours", "rounds")


BEFORE: dict[str, dict[str, Any]] = {"trace": {"denoiser": 0}, "cgvae": {"mended": False}}
"""What keys stood for, by kind, before there were such keys: until version 0.4, and until 0.6."""


def recorded_model(model: dict[str, Any]) -> dict[str, Any]:
    """Settings that an artifact or a training was made with, in today's words, every key said."""
    before = BEFORE.get(model.get("kind", ""), {})
    if model.get("kind") == "genzprot":
        # until version 0.7; of many proteins the key says nothing
        before = {"torsion_bias": not model.get("per_system")}
    return before | model


def current_model(model: dict[str, Any], fine: str, where: str) -> dict[str, Any]:
    """Settings of a stage's model; what was changed is said in a log line that starts with ``where``.

    Before version 0.2 one kind, `cgvae`, had two models: one protein (``per_system: true``) and C-alpha traces
    of any protein (``per_system: false``), which is `trace` now; `genzprot` learned many. fine: resolution that
    the stage makes. Raises ValueError for ``per_system: false`` of other resolutions, which is no more.
    """
    current, change = _converted(model, fine)
    if current is None:
        raise ValueError(f"{where}: {change}")
    if change:
        log.info("%s: %s", where, change)
    return current


def current_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """The same for the record of what a training is; nothing is said, the campaign has said it."""
    model, fine = identity.get("model"), str(identity.get("stage")).partition("-")[2]
    current = _converted(model, fine)[0] if isinstance(model, dict) else None
    return identity if current is None else identity | {"model": recorded_model(current)}


def _converted(model: dict[str, Any], fine: str) -> tuple[dict[str, Any] | None, str]:
    """Settings, None where there are none today, and in words what was changed."""
    if model.get("kind") == "genzprot":
        return {"per_system": False} | model, ""
    if model.get("kind") != "cgvae" or "per_system" not in model:
        return model, ""
    rest = {key: value for key, value in model.items() if key != "per_system"}
    if model["per_system"]:
        rest = {key: value for key, value in rest.items() if key not in OF_TRACE}
        return rest, "per_system: true is what cgvae is; the key can go"
    if fine == "ca":
        rest = {key: value for key, value in rest.items() if key in KEPT_BY_TRACE}
        return rest | BEFORE["trace"] | {
            "kind": "trace"
        }, "cgvae with per_system: false is the kind trace now"
    word = "cgvae learns one protein; the kind trace learns many, and places C-alpha atoms, not"
    return None, f"{word} {fine}"
