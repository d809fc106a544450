"""Parts of the trainer that need no ranks: engine settings, learning rate, checkpoint files."""

import json
import shutil

import pytest

from hpcbackmap.config.campaign import TrainConfig
from hpcbackmap.runtime.errors import ConfigError, InputError, ResourceError
from hpcbackmap.training.checkpoints.checkpoints import Checkpoints, Progress
from hpcbackmap.training.checkpoints.saving import file_record
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
                "zero_optimization": {
                    "stage": 2,
                    "reduce_bucket_size": 1000,
                    "allgather_bucket_size": "auto",
                    "stage3_max_reuse_distance": "auto",
                    "offload_optimizer": {"device": "none", "pin_memory": "auto"},
                    "round_robin_gradients": True,
                },
                "fp16": {"enabled": "auto", "loss_scale": 0},
                "bf16": None,
                "torch_autocast": {"enabled": False},
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
    assert config["zero_optimization"]["round_robin_gradients"] is True
    assert config["wall_clock_breakdown"] is True
    assert config["bf16"]["enabled"] is config["fp16"]["enabled"] is False
    plain = engine_config("ca-fg", TRAIN, 3)["zero_optimization"]
    assert (
        config["zero_optimization"]["allgather_bucket_size"] == plain["allgather_bucket_size"] > 0
    )
    assert '"auto"' not in json.dumps(config)


def test_offloaded_optimiser_needs_a_gpu_and_no_compiler(tmp_path, monkeypatch):
    """torch's AdamW steps on the CPU; DeepSpeed's own would be compiled."""
    train = TRAIN.model_copy(update={"offload_optimizer": True})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"stages.ca-fg.train.offload_optimizer .* no GPU"):
        engine_config("ca-fg", train, 3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    user = tmp_path / "ds.json"
    user.write_text('{"zero_optimization": {"offload_optimizer": {"pin_memory": false}}}')
    config = engine_config("ca-fg", train, 3, user)
    assert config["zero_optimization"]["offload_optimizer"] == {
        "device": "cpu",
        "pin_memory": False,
    }
    assert config["zero_force_ds_cpu_optimizer"] is False
    user.write_text('{"zero_optimization": {"offload_optimizer": {"device": "none"}}}')
    with pytest.raises(ConfigError, match=r"offload_optimizer.device is \"none\", but stages"):
        engine_config("ca-fg", train, 3, user)
    with pytest.raises(ValueError, match="set zero_stage to 1, 2 or 3"):
        TrainConfig(zero_stage=0, offload_optimizer=True)


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
        ({"bfloat16": {"enabled": True}}, r"bfloat16.enabled is true, but .*train.precision"),
        ({"amp": {"enabled": True}}, r"amp.enabled is true, but stages.ca-fg.train.precision"),
        ({"elasticity": {"enabled": True, "max_train_batch_size": 9}}, r"elasticity.enabled"),
        ({"checkpoint": {"writer": {"decoupled": True}}}, r"checkpoint.writer is .* makes it null"),
        ({"torch_autocast": {"enabled": True}}, r"torch_autocast.enabled is true, but"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            r'offload_optimizer.device is "cpu", but stages.ca-fg.train.offload_optimizer makes it "none"',
        ),
        ({"zero_optimization": {"cpu_offload": True}}, r"cpu_offload is true, but stages.ca-fg"),
        ({"zero_optimization": {"zenflow": {}}}, r"zero_optimization.zenflow is \{\}"),
        ({"zero_optimization": {"compute_grad_norm": False}}, r"compute_grad_norm is false"),
        ({"zero_optimization": True}, "zero_optimization must be an object"),
        ({"optimizer": {"type": "Adam"}}, "'optimizer' is set by the campaign"),
        ([], "JSON object"),
    ],
)
def test_contradictions_are_refused_by_key(tmp_path, record, culprit):
    user = tmp_path / "ds.json"
    user.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=culprit):
        engine_config("ca-fg", TRAIN, 3, user)


def test_key_that_stands_twice_is_refused(tmp_path):
    user = tmp_path / "ds.json"
    user.write_text('{"zero_optimization": {"stage": 2, "stage": 3}}')
    with pytest.raises(ConfigError, match=r"ds.json: not a JSON file: 'stage' stands there twice"):
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
        write_checkpoint(store, step, publish=step < 11)
    return store


def write_checkpoint(store: Checkpoints, step: int, publish: bool = True) -> None:
    tag = f"step_{step}"
    store.prepare(tag)
    state = store.folder / tag / "state.pt"
    state.write_bytes(bytes([step]) * 1000)
    weights = store.folder / f"best_{step}.safetensors"
    weights.write_bytes(b"weights")
    best = {"step": step, "weights": weights.name, "sha256": file_record(weights)["sha256"]}
    if publish:
        files = {"state.pt": file_record(state)}
        store.publish(tag, files, Progress(step=step, best=best), world_size=2, stage={})


def test_last_two_published_checkpoints_are_kept(checkpoints):
    names = {path.name for path in checkpoints.folder.iterdir()}
    assert {"step_9", "step_10", "best_9.safetensors", "best_10.safetensors"} < names
    assert not {"step_8", "best_8.safetensors"} & names
    assert checkpoints.newest()["progress"]["step"] == 10


DAMAGE = {
    "state.pt has 999 bytes of 1000": lambda place: (place / "state.pt").write_bytes(b"\n" * 999),
    "state.pt has changed": lambda place: (place / "state.pt").write_bytes(b"\0" * 1000),
    "state.pt is missing": lambda place: (place / "state.pt").unlink(),
    "other.pt does not belong to it": lambda place: (place / "other.pt").write_bytes(b""),
    "manifest.json cannot be read": lambda place: (place / "manifest.json").write_text("[]"),
    "best_10.safetensors is missing": lambda place: best_weights(place).unlink(),
    "best_10.safetensors has changed": lambda place: best_weights(place).write_bytes(b"weight"),
    "it is a copy of step_9": lambda place: shutil.copytree(
        place.with_name("step_9"), place, dirs_exist_ok=True
    ),
}


def best_weights(place):
    return place.with_name("best_10.safetensors")


@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_checkpoint_is_passed_over(checkpoints, fault, caplog):
    """DeepSpeed would unpickle every file that it finds there, also one that nobody vouched for."""
    DAMAGE[fault](checkpoints.folder / "step_10")
    assert checkpoints.newest()["progress"]["step"] == 9
    assert f"step_10 is damaged ({fault}): falling back" in caplog.text


def test_run_that_fell_back_leaves_no_checkpoint_of_the_other_future(checkpoints):
    """The damaged step_10 could come back, at the end of a copy say, and be taken for the newest."""
    (checkpoints.folder / "step_10" / "state.pt").rename(checkpoints.folder / "elsewhere")
    write_checkpoint(checkpoints, 7)
    kept = {path.name for path in checkpoints.folder.glob("step_*")}
    assert kept == {"step_7"}


def test_copies_that_a_user_made_stay_and_do_not_count(checkpoints):
    copy = shutil.copytree(checkpoints.folder / "step_10", checkpoints.folder / "step_10.old")
    write_checkpoint(checkpoints, 12)
    assert (copy / "state.pt").exists()
    assert checkpoints.newest()["tag"] == "step_12"


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
