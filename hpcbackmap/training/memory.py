"""What the training of a stage takes on every rank, before it is started, and whether ZeRO would help.

Weights, gradients and optimiser state follow from the sizes of the parameters, cut and padded as DeepSpeed
does. Activations are measured: a few frames go forward and backward on the CPU. On top come the buffers of a
reduction and of an optimiser step, up to one more copy of the gradients, the data stream and the libraries.
"""

import weakref
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcbackmap.config.campaign import Campaign, StageConfig, TrainConfig
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.split import split_frames
from hpcbackmap.store.store import FrameStore, open_store
from hpcbackmap.training.engine import Objective, micro_batch
from hpcbackmap.training.feed import Feed, StageInputs
from hpcbackmap.training.ranks.world import World

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

__all__ = [
    "RankBytes",
    "activation_bytes",
    "advice",
    "memory_lines",
    "optimizer_bytes",
    "stage_memory",
]

WORLDS = (1, 2, 4, 8, 16)
ZERO_STAGES = (0, 1, 2, 3)
FRAMES = 4
"""Frames that are measured; activations grow in proportion."""
WORTH = 0.2
"""Share of a rank's memory that a measure must save to be recommended."""
LITTLE = 1e9
"""Bytes on a rank that need no saving."""
FLOAT = 4
"""Bytes of a number: weights, gradients and optimiser state are fp32 in either precision."""
KEPT_WHOLE = 100_000
"""Numbers in a parameter up to which DeepSpeed leaves it whole on every rank under ZeRO 3."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class RankBytes:
    """Bytes on each rank between two steps."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer

    @classmethod
    def of(cls, sizes: list[int], zero_stage: int, ranks: int) -> "RankBytes":
        """For parameters of ``sizes`` numbers, as DeepSpeed shares them among ``ranks``.

        ZeRO 1 and 2 lay all parameters in a row, pad it to a multiple of twice the ranks, and give every rank
        a copy of its part to step on. ZeRO 3 pads and cuts every parameter for itself; small ones stay whole.
        AdamW holds two numbers for each of its own and a counter of 4 bytes for each tensor.
        """
        whole = sum(sizes)
        if zero_stage == 0:
            return cls(FLOAT * whole, FLOAT * whole, 2 * FLOAT * whole + 4 * len(sizes))
        if zero_stage == 3:
            part = sum(-(-size // ranks) for size in sizes)
            small = sum(size for size in sizes if size <= KEPT_WHOLE) if ranks > 1 else 0
            return cls(FLOAT * (part + small), FLOAT * part, 2 * FLOAT * part + 4)
        padded = -(-whole // (2 * ranks)) * 2 * ranks
        part = padded // ranks
        gradients = whole if zero_stage == 1 else part
        return cls(FLOAT * (padded + part), FLOAT * gradients, 2 * FLOAT * part + 4)


def stage_memory(campaign: Campaign, name: str) -> dict[str, Any]:
    """Bytes of stage ``name`` on every rank for each ZeRO stage and number of ranks, and what to make of them.

    Raises ConfigError for a stage that is not trained here or a batch that cannot be cut, InputError where the
    frames are not ingested.
    """
    config = campaign.stages.get(name)
    if config is None or config.artifact:
        known = ", ".join(key for key, stage in campaign.stages.items() if not stage.artifact)
        raise ConfigError(f"--stage {name}: not a stage to train; there are: {known or 'none'}")
    micro_batch(name, config.train, 1)
    store = open_store(campaign.store_place())
    ladders = [store.system(system).ladder for system in store.systems]
    stage = build_stage(name, config.model, ladders, config.train.seed)
    sizes = [parameter.numel() for parameter in stage.parameters()]
    inputs = _some_frames(campaign, config.train, store, stage)
    plain = config.train.model_copy(update={"activation_checkpointing": False})
    objective = Objective(stage, plain)
    per_frame = {"kept": activation_bytes(objective, inputs) / inputs.n_frames}
    stage.use_activation_checkpointing()
    per_frame["checkpointed"] = activation_bytes(objective, inputs) / inputs.n_frames
    chosen = "checkpointed" if config.train.activation_checkpointing else "kept"
    rows = _rows(name, config, sizes, per_frame[chosen])
    return {
        "stage": name,
        "kind": config.model.kind,
        "parameters": sum(sizes),
        "batch_size": config.train.batch_size,
        "precision": config.train.precision,
        "activation_checkpointing": config.train.activation_checkpointing,
        "activation_bytes_per_frame": {key: round(value) for key, value in per_frame.items()},
        "ranks": rows,
        "advice": advice(
            rows, _wanted_ranks(config), per_frame["checkpointed"] / per_frame["kept"]
        ),
    }


def activation_bytes(objective: Objective, inputs: StageInputs) -> int:
    """Most bytes that a forward and a backward pass hold at once, gradients of weights left out.

    Nothing in ``objective`` changes. Memory that an operation takes for itself and gives back is not seen.
    """
    objective.train()
    parameters = [it for it in objective.parameters() if it.requires_grad]
    hooks = [it.register_post_accumulate_grad_hook(_forget_gradient) for it in parameters]
    try:
        with _LiveBytes() as live:
            objective(*inputs.arguments())["loss"].backward()
    finally:
        for hook in hooks:
            hook.remove()
    found: int = live.most
    return found


def optimizer_bytes(engine: "DeepSpeedEngine") -> int:
    """Bytes of optimiser state that this rank holds."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    held = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in held if isinstance(value, torch.Tensor))


def memory_lines(record: dict[str, Any]) -> list[str]:
    """`stage_memory` as text."""
    per_frame = {
        key: value / MEGABYTE for key, value in record["activation_bytes_per_frame"].items()
    }
    lines = [
        f"stage {record['stage']} ({record['kind']}): {record['parameters']:,} parameters, "
        f"{record['batch_size']} frames a step, {record['precision']}",
        f"activations, MB a frame: {per_frame['kept']:.3g}; with activation_checkpointing "
        f"{per_frame['checkpointed']:.3g}",
        "",
        "MB a rank:",
        f"{'ranks':>5} {'frames':>7} {'ZeRO':>5} {'weights':>9} {'gradients':>10} {'optimizer':>10} "
        f"{'activations':>12} {'total':>9}",
    ]
    for row in record["ranks"]:
        cells = [
            f"{row[key] / MEGABYTE:>{width}.1f}"
            for key, width in (
                ("weights", 9),
                ("gradients", 10),
                ("optimizer", 10),
                ("activations", 12),
                ("total", 9),
            )
        ]
        lines.append(
            f"{row['ranks']:>5} {row['frames']:>7} {row['zero_stage']:>5} {' '.join(cells)}"
        )
    return [*lines, "", record["advice"]]


def _some_frames(
    campaign: Campaign, train: TrainConfig, store: FrameStore, stage: Stage[Any]
) -> StageInputs:
    """Training frames, as a step sees them."""
    feed = Feed(store, stage, train.seed, torch.device("cpu"), campaign.clusters() or None)
    ranges = split_frames(store, campaign.split)["train"]
    alone, budget = World(0, 1, 0, "single process"), campaign.store.budget_mb
    stream = feed.stream(ranges, min(FRAMES, train.batch_size), alone, budget)
    return feed.inputs(next(iter(stream)), "inspect")


def _rows(
    name: str, config: StageConfig, sizes: list[int], per_frame: float
) -> list[dict[str, Any]]:
    rows = []
    for ranks in sorted({*WORLDS, _wanted_ranks(config)}):
        try:
            frames = micro_batch(name, config.train, ranks)
        except ConfigError:
            continue
        for zero_stage in ZERO_STAGES:
            held = RankBytes.of(sizes, zero_stage, ranks)
            activations = round(frames * per_frame)
            rows.append(
                {"ranks": ranks, "frames": frames, "zero_stage": zero_stage, **asdict(held)}
                | {"activations": activations, "total": held.total + activations}
            )
    return rows


def _wanted_ranks(config: StageConfig) -> int:
    return config.node_group.tasks


def advice(rows: list[dict[str, Any]], wanted: int, left: float) -> str:
    """Does ZeRO help, and if not, what does, in a sentence or two.

    rows: of `stage_memory`. wanted: ranks that the campaign asks for. left: share of the activations that
    activation checkpointing leaves.
    """
    known = sorted({row["ranks"] for row in rows})
    ranks = wanted if wanted in known and wanted > 1 else max(it for it in known if it <= 4)
    here = [row for row in rows if row["ranks"] == ranks]
    without, least = here[0]["total"], min(row["total"] for row in here)
    best = next(row for row in here if row["total"] <= 1.05 * least)
    share, saved = 1 - here[0]["activations"] / without, 1 - best["total"] / without
    facts = (
        f"weights, gradients and optimiser state are {share:.0%} of the {without / MEGABYTE:,.0f} MB that "
        f"each of {ranks} rank(s) holds without it"
    )
    if without < LITTLE:
        return f"ZeRO is not needed: {facts}."
    if saved >= WORTH:
        return f"ZeRO {best['zero_stage']} helps: {facts}; it saves {saved:.0%}."
    checkpointing = "activation_checkpointing, " if left < 1 - WORTH else ""
    return (
        f"ZeRO will not help: {facts}. Activations are the rest: {checkpointing}more ranks or more "
        "accumulation for the same batch_size would."
    )


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made under it that are alive; ``most`` is the highest count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.most = 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = {
            id(leaf.untyped_storage())
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in given:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.bytes -= size


def _forget_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None
