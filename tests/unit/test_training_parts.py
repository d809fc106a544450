"""Parts of the trainer that need no ranks: engine settings, learning rate, checkpoint files."""

import json

import pytest

from hpcbackmap.config import TrainConfig
from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.training.checkpoints import Checkpoints, Progress
from hpcbackmap.training.engine import engine_config
from hpcbackmap.training.schedule import learning_rate

TRAIN = TrainConfig(batch_size=24, accumulation=2, zero_stage=2, gradient_clipping=0.5)


def test_engine_settings_come_from_the_campaign(tmp_path):
    user = tmp_path / "ds.json"
    user.write_text(
        json.dumps(
            {
                "train_batch_size": "auto",
                "gradient_clipping": 0.5,
                "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000},
                "wall_clock_breakdown": True,
            }
        )
    )
    config = engine_config("ca-fg", TRAIN, 3, user)
    assert config["train_batch_size"] == 24
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 2
    assert config["zero_optimization"]["stage"] == 2
    assert config["zero_optimization"]["reduce_bucket_size"] == 1000
    assert config["wall_clock_breakdown"] is True


@pytest.mark.parametrize(
    ("record", "culprit"),
    [
        (
            {"zero_optimization": {"stage": 3}},
            r"zero_optimization.stage is 3, but stages.ca-fg.train.zero_stage",
        ),
        (
            {"train_batch_size": 8},
            r"train_batch_size is 8, but stages.ca-fg.train.batch_size makes it 24",
        ),
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu"),
        ({"gradient_clipping": 1.0}, "gradient_clipping"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps"),
        ({"bf16": {"enabled": True}}, r"bf16.enabled"),
        ({"optimizer": {"type": "Adam"}}, "'optimizer' is set by the campaign"),
        ([], "JSON object"),
    ],
)
def test_contradictions_are_refused_by_key(tmp_path, record, culprit):
    user = tmp_path / "ds.json"
    user.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=culprit):
        engine_config("ca-fg", TRAIN, 3, user)


def test_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(
        ConfigError, match=r"batch_size=24 .* 5 rank\(s\) x accumulation 2; .* multiple of 10"
    ):
        engine_config("ca-fg", TRAIN, 5)


def test_learning_rate_warms_up_and_falls_to_a_twentieth():
    train = TrainConfig(learning_rate=1.0, warmup_steps=10, max_steps=1000)
    rates = [learning_rate(train, step, seconds=0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] == pytest.approx(0.05, abs=1e-4)
    assert rates[500] == pytest.approx(0.525, abs=1e-3)


def test_learning_rate_follows_the_clock_where_minutes_are_limited():
    train = TrainConfig(learning_rate=1.0, warmup_steps=0, max_steps=1000, max_minutes=1)
    assert learning_rate(train, 1, seconds=60) == pytest.approx(0.05)
    assert learning_rate(train, 500, seconds=6) == pytest.approx(0.525, abs=1e-3)


IDENTITY = {"model": {"width": 8}, "train": {"seed": 0, "max_steps": 10}}


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    """Three published checkpoints, of which two are kept, and one that was never published."""
    store = Checkpoints(tmp_path, IDENTITY, frozenset({"train.max_steps"}))
    for step in (8, 9, 10, 11):
        store.prepare(f"step_{step}")
        (tmp_path / f"step_{step}" / "state.pt").write_bytes(bytes([step]) * 1000)
        (tmp_path / f"best_{step}.safetensors").write_bytes(b"weights")
        if step < 11:
            best = {"step": step, "weights": f"best_{step}.safetensors"}
            store.publish(f"step_{step}", Progress(step=step, best=best), world_size=2)
    return store


def test_last_two_published_checkpoints_are_kept(checkpoints):
    names = {path.name for path in checkpoints.folder.iterdir()}
    assert {"step_9", "step_10", "best_9.safetensors", "best_10.safetensors"} < names
    assert not {"step_8", "best_8.safetensors"} & names
    assert checkpoints.newest()["progress"]["step"] == 10


@pytest.mark.parametrize("damage", ["shorter", "changed", "missing", "manifest", "weights"])
def test_damaged_checkpoint_is_passed_over(checkpoints, damage, caplog):
    state = checkpoints.folder / "step_10" / "state.pt"
    if damage == "shorter":
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "changed":
        state.write_bytes(b"\0" * 1000)
    elif damage == "missing":
        state.unlink()
    elif damage == "manifest":
        (checkpoints.folder / "step_10" / "manifest.json").write_text("{")
    else:
        (checkpoints.folder / "best_10.safetensors").unlink()
    assert checkpoints.newest()["progress"]["step"] == 9
    assert "step_10 is damaged" in caplog.text


def test_no_intact_checkpoint_is_an_error_not_a_new_start(checkpoints):
    for state in checkpoints.folder.glob("step_*/state.pt"):
        state.write_bytes(b"")
    with pytest.raises(InputError, match="no intact checkpoint"):
        checkpoints.newest()


def test_checkpoint_of_another_training_is_refused(checkpoints):
    checkpoints.identity = {"model": {"width": 16}, "train": {"seed": 0, "max_steps": 10}}
    with pytest.raises(ConfigError, match=r"model.width was 8, is 16"):
        checkpoints.newest()
    checkpoints.identity = {"model": {"width": 8}, "train": {"seed": 0, "max_steps": 99}}
    assert checkpoints.newest()["progress"]["step"] == 10
