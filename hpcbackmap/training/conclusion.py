"""What a training leaves at its end: the artifact of its best weights, or why there is none."""

import logging
from pathlib import Path
from typing import Any

import torch

from hpcbackmap.runtime.errors import DivergedError
from hpcbackmap.training.checkpoints.publish import publish_artifact
from hpcbackmap.training.divergence import is_far_worse
from hpcbackmap.training.engine import Objective
from hpcbackmap.training.ranks.world import on_rank_zero
from hpcbackmap.training.run import Run
from hpcbackmap.training.validation import validate, warn_of_collapse

__all__ = ["conclude"]

log = logging.getLogger(__name__)


def conclude(run: Run) -> dict[str, Any]:
    """Artifact of the best weights, and the result that `train` returns.

    Where it only got worse on frames that it has not seen, a stage that was of use before the first step
    is published as it was then. Raises DivergedError where no validation was finite, or the best one is
    far worse than at the start.
    """
    progress = run.progress
    _require_something_learned(run)
    if progress.best is None:
        run.require_finite_weights()
        run.keep_weights({})
    best = dict(progress.best or {})
    weights, best_step = run.checkpoints.folder / best.pop("weights"), best.pop("step")
    best.pop("sha256", None)
    result = {
        "stage": run.name,
        "steps": progress.step,
        "minutes": progress.seconds / 60,
        "frames_seen": progress.position,
        "skipped": progress.skipped,
        "parameters": run.parameters,
        "best_step": best_step,
        "validation": best or None,
    }
    on_rank_zero(run.world, lambda: _export(run, weights, result))
    torch.distributed.barrier()
    log.info("%s is trained: %s", result["stage"], run.folder / "artifact")
    return result


def _require_something_learned(run: Run) -> None:
    progress = run.progress
    anew = f"lower stages.{run.name}.train.learning_rate, and remove {run.folder} to train anew"
    if progress.skipped >= progress.step:
        raise DivergedError(f"{run.name}: no step had a finite loss and gradient; {anew}")
    if not run.validation:
        return
    if progress.best is None:
        raise DivergedError(f"{run.name}: no validation loss was finite; {anew}")
    if progress.start_loss is not None:
        best, step = progress.best["loss"], progress.best["step"]
        if is_far_worse(best, progress.start_loss) and not _keep_start(run):
            raise DivergedError(
                f"{run.name}: the best validation loss, {best:.4g} after step {step}, is far worse than "
                f"{progress.start_loss:.4g} at the start; {anew}"
            )


def _keep_start(run: Run) -> bool:
    """Make the start what is published, if it was of use and training then learned its frames by heart.

    A training that has become worse on its own frames, too, has diverged.
    """
    stage = run.new_stage().to(run.device)
    if not (stage.fitted or run.train.init_from):
        return False
    run.bring_to_start(stage)
    start = Objective(stage, run.train)
    learned = run.judged_frames("train", run.train.validation_frames)
    if not validate(run.engine, learned)["loss"] < validate(start, learned)["loss"]:
        return False
    weights = {key: value.detach().cpu().clone() for key, value in stage.state_dict().items()}
    run.keep(weights, 0, validate(start, run.validation))
    log.warning(
        "%s: training frames were learned by heart, others only got worse: the stage is published as it "
        "was before the first step; more frames, fewer steps or a smaller network may do better",
        run.name,
    )
    return True


def _export(run: Run, weights: Path, result: dict[str, Any]) -> None:
    """Publish the artifact; warn if its latents are out of use."""
    stage = run.new_stage()
    publish_artifact(run.folder, stage, weights, run.identity, result)
    if run.validation:
        inputs, _ = run.validation[0]
        found = result["validation"] or {}
        warn_of_collapse(stage.to(run.device).eval(), inputs, found, run.train.seed)
