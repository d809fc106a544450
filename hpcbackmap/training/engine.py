"""The DeepSpeed engine of one stage: its configuration, its making, one guarded optimiser step.

The JSON is generated from the campaign. A user's own file may add to it; where it contradicts what the
campaign decides it is refused by key, because two truths about a batch size end in a wrong curve.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hpcbackmap.config.campaign import TrainConfig
from hpcbackmap.runtime.errors import ConfigError, ResourceError
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.stages.base import Stage

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

__all__ = [
    "Objective",
    "apply_gradients",
    "engine_config",
    "full_weights",
    "make_engine",
    "micro_batch",
]

BUCKET = 10_000_000
"""Elements per reduction; DeepSpeed's default of 5e8 would take 2 GB beside models of a few million."""


class Objective(nn.Module):
    """What the engine runs: the stage's loss, as a module of its own.

    bf16 means bf16 message passing in training; weights, coordinates, densities and validation stay fp32.
    """

    def __init__(self, stage: Stage[Any], train: TrainConfig):
        super().__init__()
        self.stage = stage
        if train.precision == "bf16":
            stage.use_bf16()
        if train.activation_checkpointing:
            stage.use_activation_checkpointing()

    def forward(
        self, fine: Tensor, coarse: Tensor, system: Any, noise: Tensor
    ) -> dict[str, Tensor]:
        return self.stage.loss(fine, coarse, system, noise)


def micro_batch(stage: str, train: TrainConfig, world_size: int) -> int:
    """Frames per rank and forward pass. Raises ConfigError if the global batch cannot be shared evenly."""
    parts = world_size * train.accumulation
    if train.batch_size % parts:
        raise ConfigError(
            f"stages.{stage}.train.batch_size={train.batch_size} cannot be shared by {world_size} rank(s) x "
            f"accumulation {train.accumulation}; use a multiple of {parts}"
        )
    return train.batch_size // parts


def engine_config(
    stage: str, train: TrainConfig, world_size: int, user_file: str | Path | None = None
) -> dict[str, Any]:
    """DeepSpeed's configuration as it will be used and written beside the outputs.

    user_file: a DeepSpeed JSON whose further keys are merged in; ``auto`` and null leave a value to the
    campaign or to DeepSpeed.
    Raises ConfigError naming the key where it contradicts the campaign, and ResourceError where the optimiser
    should be offloaded from a GPU that is not there.
    """
    decided = _decided(stage, train, world_size)
    user = _read_user_file(user_file) if user_file else {}
    for key in ("optimizer", "scheduler"):
        if key in user:
            raise ConfigError(
                f"{user_file}: {key!r} is set by the campaign (stages.{stage}.train: learning_rate, "
                "weight_decay, warmup_steps); remove it"
            )
    _refuse_contradictions(user, _merge(UNSUITED, decided), stage, user_file)
    return _merge(_merge(DEFAULTS, user), decided)


def _decided(stage: str, train: TrainConfig, world_size: int) -> dict[str, Any]:
    """What the campaign decides."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload_optimizer:
        if not torch.cuda.is_available():
            raise ResourceError(
                f"stages.{stage}.train.offload_optimizer moves optimiser state from a GPU to the CPU, and "
                "there is no GPU here; set it to false"
            )
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": micro_batch(stage, train, world_size),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": train.gradient_clipping,
        "zero_optimization": zero,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "checkpoint": {"load_universal": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


DEFAULTS = {
    "steps_per_print": None,
    "zero_optimization": {
        "overlap_comm": False,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    },
}
UNSUITED = {
    "amp": {"enabled": False},
    "bfloat16": {"enabled": False},
    "torch_autocast": {"enabled": False},
    "elasticity": {"enabled": False},
    "curriculum_learning": {"enabled": False},
    "progressive_layer_drop": {"enabled": False},
    "checkpoint": {"writer": None, "use_node_local_storage": False},
    "datastates_ckpt": None,
    "zero_optimization": {
        "cpu_offload": False,
        "offload_optimizer": {"device": "none", "super_offload": False, "ratio": 1.0},
        "zenflow": None,
        "compute_grad_norm": True,
    },
}
"""What a file may say of these keys, if it names them. Else it would change precision, batches or what the
network is called with, ask for an optimiser that DeepSpeed compiles first, hide the gradient norm, or write
checkpoints in the background or where only one node sees them."""
CAMPAIGN_KEYS = {
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size / (ranks x accumulation)",
    "gradient_accumulation_steps": "accumulation",
    "gradient_clipping": "gradient_clipping",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.cpu_offload": "offload_optimizer",
    "zero_optimization.offload_optimizer.device": "offload_optimizer",
    "bf16.enabled": "precision (bf16 products on fp32 weights)",
    "bfloat16.enabled": "precision (bf16 products on fp32 weights)",
    "fp16.enabled": "precision",
    "amp.enabled": "precision",
    "torch_autocast.enabled": "precision",
}


def _read_user_file(path: str | Path) -> dict[str, Any]:
    try:
        record = json.loads(read_regular(path), object_pairs_hook=_once_each)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: a DeepSpeed configuration is a JSON object")
    return record


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without the values that are left to others: ``auto`` and null."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key!r} stands there twice")
    return {key: value for key, value in pairs if value not in ("auto", None)}


def _refuse_contradictions(
    user: dict[str, Any], decided: dict[str, Any], stage: str, path: Any, prefix: str = ""
) -> None:
    for key, wanted in decided.items():
        if key not in user:
            continue
        name = prefix + key
        if isinstance(wanted, dict):
            if not isinstance(user[key], dict):
                raise ConfigError(f"{path}: {name} must be an object")
            _refuse_contradictions(user[key], wanted, stage, path, f"{name}.")
        elif user[key] != wanted:
            source = CAMPAIGN_KEYS.get(name)
            where = f"stages.{stage}.train.{source}" if source else "this package"
            raise ConfigError(
                f"{path}: {name} is {json.dumps(user[key])}, but {where} makes it {json.dumps(wanted)}"
            )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, key by key in nested objects."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def make_engine(
    objective: Objective, train: TrainConfig, config: dict[str, Any]
) -> "DeepSpeedEngine":
    """DeepSpeed engine around ``objective`` with torch's AdamW, which needs no compiler, offloaded or not.

    Raises ConfigError for settings that this DeepSpeed does not know.
    """
    import deepspeed
    from pydantic import ValidationError

    optimiser = torch.optim.AdamW(
        objective.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )
    try:
        engine, *_ = deepspeed.initialize(model=objective, optimizer=optimiser, config=config)
    except ValidationError as error:
        found = error.errors()[0]
        key = ".".join(map(str, found["loc"]))
        raise ConfigError(
            f"deepspeed.json: {key!r} is nothing that DeepSpeed {deepspeed.__version__} takes "
            f"({error.title}: {found['msg']})"
        ) from None
    return engine


def apply_gradients(engine: "DeepSpeedEngine", learning_rate: float) -> float:
    """One optimiser step; returns the gradient norm before clipping.

    A norm that is not finite (returned as inf) leaves the weights as they were, on all ranks alike: ZeRO
    1-3 check it themselves, stage 0 would step into it.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    if engine.zero_optimization():
        engine.step()
        norm = engine.get_global_grad_norm()
        return float(norm) if norm is not None and 0 <= norm < math.inf else math.inf
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    if math.isfinite(norm):
        engine.step()
        return norm
    engine.zero_grad()
    engine.micro_steps += 1
    return math.inf


def full_weights(engine: "DeepSpeedEngine") -> dict[str, Tensor]:
    """Whole fp32 state of the stage on the CPU, on every rank; under ZeRO 3 all ranks must call it."""
    import deepspeed

    stage = engine.module.stage
    partitioned = engine.zero_optimization_partition_weights()
    with deepspeed.zero.GatheredParameters(list(stage.parameters()), enabled=partitioned):
        return {key: value.detach().cpu().clone() for key, value in stage.state_dict().items()}
