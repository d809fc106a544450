"""A training that leaves the numbers publishes nothing; one that overfits, the start if that was of use."""

import json

import pytest
from runs import STAGE, alone, finish_two, records, stage_folder
from safetensors.torch import load_file

from hpcbackmap.cli.app import main
from hpcbackmap.runtime.errors import DivergedError
from hpcbackmap.training import run as run_module
from hpcbackmap.training.divergence import is_far_worse
from hpcbackmap.training.trainer import train

SHORT = [
    f"stages.{STAGE}.train.{it}"
    for it in ("max_steps=12", "checkpoint_every=5", "validate_every=4")
]

BROKEN_AFTER_7 = f"""
import sys

import torch

from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import DivergedError
from hpcbackmap.training import run
from hpcbackmap.training.trainer import train

whole = run.apply_gradients
calls = 0


def spoilt(engine, rate):
    global calls
    calls += 1
    if calls == 7:
        for group in engine.optimizer.param_groups:
            group["lr"] = float("inf")
        return whole(engine, float("inf"))
    return whole(engine, rate)


run.apply_gradients = spoilt
campaign, *overrides = [word for word in sys.argv[1:] if word not in ("--stage", "{STAGE}")]
workdir = overrides.pop()
for zero in range(4):
    calls = 0
    here = [f"{{workdir}}/{{zero}}", f"stages.{STAGE}.train.zero_stage={{zero}}"]
    try:
        train(load_campaign(campaign, [*overrides, *here]), "{STAGE}")
    except DivergedError as error:
        print(f"zero {{zero}}: {{error}}")
    torch.distributed.barrier()
"""


def test_weights_that_are_no_numbers_end_the_training_on_all_ranks(example, tmp_path):
    """Found at the next step, under every ZeRO stage; checkpoints from before it are whole, none came after."""
    program = tmp_path / "broken.py"
    program.write_text(BROKEN_AFTER_7)
    output = finish_two([*example, *SHORT], tmp_path, program=str(program))
    for zero in range(4):
        said = (
            f"zero {zero}: {STAGE}: weights that are not finite since step 7; lower stages.{STAGE}"
        )
        assert output.count(said) == 2
        folder = stage_folder(tmp_path / str(zero))
        assert not (folder / "artifact").exists()
        assert not (folder / "done.json").exists()
        kept = sorted(path.name for path in (folder / "checkpoints").glob("step_*"))
        assert kept == ["step_5"]
        best = load_file(folder / "checkpoints" / "best_4.safetensors")
        assert all(value.isfinite().all() for value in best.values())
    assert output.count("nothing was published, the last good checkpoint is step_5") == 8


def test_a_lower_rate_goes_on_from_the_last_good_checkpoint(example, tmp_path, monkeypatch):
    whole = run_module.apply_gradients
    with monkeypatch.context() as broken:
        broken.setattr(run_module, "apply_gradients", breaking_after(7, whole))
        with pytest.raises(DivergedError, match=r"since step 7.*last good checkpoint is step_5"):
            train(alone(example, tmp_path, *SHORT), STAGE)
    monkeypatch.setattr(run_module.Run, "bring_to_start", None)  # all is in the checkpoint
    slower = f"stages.{STAGE}.train.learning_rate=1e-4"
    result = train(alone(example, tmp_path, *SHORT, slower), STAGE)
    assert result["steps"] == 12
    assert [it["step"] for it in records(tmp_path) if it["kind"] == "start"] == [0, 5]


def breaking_after(step, whole):
    calls = iter(range(1, 1000))
    return lambda engine, rate: whole(engine, float("inf") if next(calls) == step else rate)


def test_a_training_that_only_got_worse_publishes_nothing(example, tmp_path, monkeypatch, capsys):
    """Finite weights, finite losses, and nothing learned: the command ends with 7 and one line."""
    monkeypatch.setattr(run_module, "learning_rate", lambda *_: 30.0)
    campaign, *overrides = example
    with pytest.raises(SystemExit) as ended:
        main(["train", campaign, "--stage", STAGE, f"workdir={tmp_path}", *overrides, *SHORT])
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 7
    assert "nothing was published" in said[-1]
    assert "far worse than" in said[-1] or "finite" in said[-1]
    assert not (stage_folder(tmp_path) / "artifact").exists()


def test_the_start_is_kept_over_restarts(example, tmp_path, monkeypatch):
    train(alone(example, tmp_path, *SHORT), STAGE)
    manifest = stage_folder(tmp_path) / "checkpoints" / "step_12" / "manifest.json"
    progress = json.loads(manifest.read_text())["progress"]
    assert progress["best"]["loss"] < progress["start_loss"]


@pytest.mark.parametrize(
    ("loss", "begun", "worse"),
    [(1.0, 1.0, False), (2.2, 1.0, False), (2.3, 1.0, True), (float("nan"), 1.0, True),
     (-300.0, -400.0, False), (-298.0, -400.0, True), (5.0, float("nan"), False), (float("inf"), 0.0, True)],
)  # fmt: skip
def test_far_worse(loss, begun, worse):
    assert is_far_worse(loss, begun) is worse


FEW_FRAMES = [
    "split={by: time, validation: 0.5, test: 0.492}",
    f"stages.{STAGE}.model={{kind: cgvae, width: 32, layers: 2, latent: 4, mended: false}}",
    f"stages.{STAGE}.train={{batch_size: 8, max_steps: 60, learning_rate: 1.0e-2, validate_every: 60, "
    "checkpoint_every: 60, validation_frames: 16, warmup_steps: 1}",
]


def test_a_fitted_stage_that_learned_its_frames_by_heart_is_published_as_it_began(
    example, tmp_path, caplog
):
    """The closed form is better than what came of it. (What got worse on its own frames, too, is refused.)"""
    campaign = alone(example, tmp_path, *FEW_FRAMES)
    result = train(campaign, STAGE)
    assert "published as it was before the first step" in caplog.text
    manifest = stage_folder(tmp_path) / "checkpoints" / "step_60" / "manifest.json"
    progress = json.loads(manifest.read_text())["progress"]
    assert result["best_step"] == 0
    assert progress["best"]["loss"] > progress["start_loss"] + 1
    assert result["validation"]["loss"] == progress["start_loss"]
    assert train(campaign, STAGE) == result, "done"
