"""An artifact from any checkpoint, in a process of its own: no launcher, no ranks, no frames."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import free_output, only_writer
from hpcbackmap.training.checkpoints.checkpoints import last_published, verified_manifest
from hpcbackmap.training.checkpoints.state_files import read_state, without_pickles

__all__ = ["export_checkpoint"]

PREFIX = "stage."
"""What the trained module puts before the names of the stage's weights."""


def export_checkpoint(path: Path, output: Path, force: bool = False) -> dict[str, Any]:
    """Write the weights that checkpoint ``path`` would go on with as an artifact.

    path: a folder ``step_<n>``, or the ``checkpoints`` folder for the newest. The weights are those of its
    step, not the best so far. Returns ``stage``, ``step`` and ``artifact``.
    Raises InputError for a damaged checkpoint, OutputError if ``output`` exists (without ``force``) or cannot
    be written, ResourceError while another run writes it.
    """
    tag = last_published(path)
    place = path.resolve() if tag is None else path / tag
    free_output(output, force)
    manifest = verified_manifest(place)
    from hpcbackmap.stages.artifact import build_described, save_artifact

    try:
        stage = build_described(manifest["stage"])
        stage.load_state_dict(_weights(place, manifest["identity"]["train"]["zero_stage"]))
        card = _card(manifest)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: its weights do not fit its description: {reason}") from None
    with only_writer(output):
        save_artifact(stage, output, card)
    step = manifest["progress"]["step"]
    return {"stage": stage.name, "step": step, "artifact": str(output)}


def _weights(place: Path, zero_stage: int) -> dict[str, Any]:
    """Whole fp32 weights by name; nothing is unpickled."""
    if zero_stage == 0:
        weights = read_state(place / "mp_rank_00_model_states.pt")["module"]
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with quiet[0], quiet[1], without_pickles():
            weights = get_fp32_state_dict_from_zero_checkpoint(str(place.parent), place.name)
    return {name.removeprefix(PREFIX): value for name, value in weights.items()}


def _card(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the model card says."""
    from hpcbackmap.training.checkpoints.publish import model_card

    progress, best = manifest["progress"], manifest["progress"]["best"]
    told = {
        "steps": progress["step"],
        "frames_seen": progress["position"],
        "minutes": progress["seconds"] / 60,
        "validation": None,
        "best_step": best and best["step"],
    }
    note = (
        f"Weights after step {progress['step']} of a training that was to go on; they may not be the best "
        "that it has validated."
    )
    return model_card(manifest["identity"], told) | {
        "checkpoint": note,
        "versions": manifest["versions"],
    }
