"""How a stage is trained, as the campaign file has it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcbackmap.config.model import Model
from hpcbackmap.config.values import Bound, Frames, Line, Minutes, Rate, Seed, Steps, StepsOrNone

__all__ = ["CHANGE_NO_WEIGHT", "TrainConfig"]


class TrainConfig(Model):
    """Optimisation of one stage. `batch_size` is global: frames per optimiser step over all ranks."""

    batch_size: Frames = 32
    """Frames of an optimiser step, over all ranks; a multiple of ranks times `accumulation`."""
    max_steps: Steps = 2000
    """Optimiser steps of the whole training."""
    max_minutes: Minutes | None = None
    """Ends the training by the clock; two such runs differ."""
    learning_rate: Rate = 1e-3
    """Largest learning rate of AdamW; it rises over `warmup_steps`, then falls along a cosine."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Of AdamW."""
    warmup_steps: StepsOrNone = 100
    """Steps over which the learning rate rises."""
    gradient_clipping: Bound = 1.0
    """Largest norm of a gradient."""
    accumulation: Frames = 1
    """Micro-batches of a step on every rank: less memory, the same numbers."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO: what the ranks share out (optimiser state, gradients, weights)."""
    offload_optimizer: bool = False
    """Optimiser state and step on the CPU while the stage trains on GPUs; needs ZeRO 1 to 3."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of message passing in training; weights and coordinates stay fp32."""
    activation_checkpointing: bool = False
    """Compute message passing a second time in the backward pass rather than keep its results."""
    validate_every: Steps = 200
    """Steps from one validation to the next."""
    validation_frames: Frames = 128
    """Frames that a validation looks at."""
    checkpoint_every: Steps = 200
    """Steps from one checkpoint to the next."""
    log_every: Steps = 20
    """Steps from one line of the training record to the next."""
    patience: Steps | None = None
    """Stop after this many validations without a better validation loss."""
    init_from: Line | None = None
    """Artifact of the same rung and model to start from, or ``shipped``, the one of the package."""
    seed: Seed = 0
    """Of the starting weights, the order of frames and the noise."""

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> "TrainConfig":
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer is a part of ZeRO; set zero_stage to 1, 2 or 3")
        return self


CHANGE_NO_WEIGHT = frozenset(
    {"log_every", "checkpoint_every", "activation_checkpointing", "offload_optimizer"}
)
"""Keys of `TrainConfig` that change no weight, or like the number of ranks only its last bits."""
