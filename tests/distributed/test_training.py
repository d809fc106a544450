"""Training is the same after kill, damage, stop and on other ranks and ZeRO stages."""

import re
import signal

import numpy as np
import pytest
from runs import (
    ALONE,
    DEEPSPEED,
    STAGE,
    STEPS,
    alone,
    assert_close,
    by_hand,
    curve,
    finish,
    finish_two,
    kill_tree,
    records,
    stage_folder,
    start,
    start_ranks,
    wait_for,
)

from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, ResourceError


def test_killed_run_continues_the_undisturbed_curve(example, undisturbed, tmp_path):
    assert len(undisturbed) == STEPS + STEPS // 15
    run = start(DEEPSPEED, example, tmp_path)
    checkpoints = stage_folder(tmp_path) / "checkpoints"
    wait_for(checkpoints / "step_20" / "manifest.json", run)
    kill_tree(run)
    assert not (stage_folder(tmp_path) / "done.json").exists()
    last = max(int(path.parent.name[5:]) for path in checkpoints.glob("step_*/manifest.json"))
    half = checkpoints / f"step_{last}" / "mp_rank_00_model_states.pt"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])

    output = finish_two(example, tmp_path)
    assert f"checkpoint step_{last} is damaged (mp_rank_00_model_states.pt has" in output
    assert f"continuing after step {last - 10}" in output
    assert curve(tmp_path) == undisturbed
    assert (stage_folder(tmp_path) / "artifact" / "model.safetensors").exists()


def test_stop_signal_to_one_rank_stops_all_and_another_number_of_ranks_continues(
    example, undisturbed, tmp_path
):
    ranks = start_ranks(example, tmp_path, by_hand([0, 1], 2))
    wait_for(stage_folder(tmp_path) / "checkpoints" / "step_10" / "manifest.json", ranks[0])
    ranks[1].send_signal(signal.SIGUSR1)
    outputs = [finish(rank, code=75) for rank in ranks]
    assert "the same command continues" in outputs[0]

    output = finish(start(ALONE, example, tmp_path))
    assert "checkpoint of 2 ranks, reshaped for 1" in output
    assert not re.search(r"Converting|Extracting|it/s", output), "what DeepSpeed's converter prints"
    assert_close(curve(tmp_path), undisturbed, 1e-4)


ONE_BAD_LOSS = f"""
import sys

from hpcbackmap.config.load import load_campaign
from hpcbackmap.training.run import Run
from hpcbackmap.training.trainer import train

forward = Run._forward


def spoilt(self):
    losses = forward(self)
    if (self.world.rank, self.progress.step) == (1, 2):
        losses["loss"] = losses["loss"] + float("inf")  # whose gradient is finite
    return losses


Run._forward = spoilt
campaign, *overrides = [word for word in sys.argv[1:] if word not in ("--stage", "{STAGE}")]
workdir = overrides.pop()
for zero in range(4):
    here = [f"{{workdir}}/{{zero}}", f"stages.{STAGE}.train.zero_stage={{zero}}"]
    train(load_campaign(campaign, [*overrides, *here]), "{STAGE}")
"""


def test_step_that_is_not_finite_on_one_rank_is_skipped_by_all(example, tmp_path):
    """Counted once, with accumulation, under every ZeRO stage; and their curves agree."""
    program = tmp_path / "one_bad_loss.py"
    program.write_text(ONE_BAD_LOSS)
    short = [f"stages.{STAGE}.train.{it}" for it in ("max_steps=20", "accumulation=2")]
    output = finish_two([*example, *short], tmp_path, program=str(program))
    assert output.count("step 3: loss or gradient is not finite, skipped") == 4
    curves = {}
    for zero in range(4):
        folder = tmp_path / str(zero)
        for name in ("metrics.jsonl", "metrics.rank1.jsonl"):
            steps = [it for it in records(folder, name) if it["kind"] == "train"]
            assert [it["skipped"] for it in steps] == [0, 0] + [1] * 18
            assert [it["step"] for it in steps if "gradient_norm" not in it] == [3]
        curves[zero] = {it["step"]: it["loss"] for it in steps if it["step"] != 3}
        assert_close(curves[zero], curves[0], 1e-5)


def test_finished_training(example, tmp_path):
    """Its artifact holds the best weights, a rerun does nothing, other settings are refused."""
    from safetensors.torch import load_file

    from hpcbackmap.stages.artifact import load_artifact
    from hpcbackmap.training.trainer import train

    short = f"stages.{STAGE}.train.max_steps=4"
    result = train(alone(example, tmp_path, short), STAGE)
    assert result["steps"] == 4
    assert result["best_step"] == 4
    assert np.isfinite(result["validation"]["log_likelihood"])
    folder = stage_folder(tmp_path)
    weights = load_file(folder / "checkpoints" / "best_4.safetensors")
    exported = load_artifact(folder / "artifact").state_dict()
    assert exported.keys() == weights.keys()
    assert all((exported[name] == weights[name]).all() for name in weights)

    before = (folder / "done.json").stat().st_mtime_ns
    assert train(alone(example, tmp_path, short), STAGE) == result
    assert (folder / "done.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"train.seed was 0, is 1; remove the folder"):
        train(alone(example, tmp_path, short, f"stages.{STAGE}.train.seed=1"), STAGE)


def test_training_that_diverges_ends_with_a_reason(example, tmp_path, monkeypatch):
    from hpcbackmap.stages.cgvae.model import Cgvae
    from hpcbackmap.training.trainer import train

    loss = Cgvae.loss

    def lost(self, *inputs):
        terms = loss(self, *inputs)
        return {**terms, "loss": terms["loss"] * float("nan")}

    monkeypatch.setattr(Cgvae, "loss", lost)
    settings = f"stages.{STAGE}.train.max_steps=30"
    with pytest.raises(HpcbackmapError, match=r"finite loss and gradient.* lower stages"):
        train(alone(example, tmp_path, settings), STAGE)


def test_folder_in_use_is_refused(example, tmp_path):
    from hpcbackmap.training.ranks.lock import only_training
    from hpcbackmap.training.ranks.world import World
    from hpcbackmap.training.trainer import train

    with (
        only_training(stage_folder(tmp_path), World(0, 1, 0, "single process")),
        pytest.raises(ResourceError, match=r"process .* is training it"),
    ):
        train(alone(example, tmp_path), STAGE)


def test_batch_that_does_not_fit_the_ranks_ends_before_they_meet(example, tmp_path, monkeypatch):
    from hpcbackmap.training.trainer import train

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"train.batch_size=8 cannot be shared by 3 rank\(s\)"):
        train(alone(example, tmp_path), STAGE)
    assert not stage_folder(tmp_path).exists()
