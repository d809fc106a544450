"""The MPI driver: ranks take shards from a shared counter, run the whole chain, write each shard whole."""

import logging
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.backmapping.chain import Chains, load_chain
from hpcbackmap.backmapping.output import create_output, open_output, stored_plan
from hpcbackmap.backmapping.pipeline import Groups, Link, RemoteChains, serve
from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.planning import (
    chosen_frames,
    make_plan,
    stage_folders,
    start_resolution,
)
from hpcbackmap.backmapping.records import Records, only_run
from hpcbackmap.backmapping.source import Source
from hpcbackmap.backmapping.summary import of_structures
from hpcbackmap.backmapping.worker import Worker
from hpcbackmap.backmapping.workspace import is_workspace
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.finishing.options import require_openmm
from hpcbackmap.runtime.errors import (
    ConfigError,
    InputError,
    OutputError,
    ResourceError,
    Stopped,
)
from hpcbackmap.runtime.mpi import Comm, MpiComm, on_first_rank
from hpcbackmap.runtime.progress import Progress
from hpcbackmap.runtime.stopping import StopSignals

if TYPE_CHECKING:
    import torch

    from hpcbackmap.stages.base import Stage

__all__ = ["AnotherPlan", "backmap", "descend"]

log = logging.getLogger(__name__)


def backmap(
    campaign: Campaign,
    comm: Comm,
    time_limit: float | None = None,
    part: tuple[int, int] = (0, 1),
    pipeline: list[int] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Backmap the campaign's coarse frames; collective over ``comm``.

    time_limit: seconds after which no shard is begun that would not end before. part: (i, n), the i-th of n
    equal parts of the shards, from 0, for runs that share the work; default: all. pipeline: ranks of each
    stage, coarse to fine; default: every rank runs the whole chain. device: ``auto``, ``cpu``, ``cuda``.
    Returns counts and the output path.
    Raises InputError for an unfitting input or artifact, OutputError for an output made by another plan,
    ResourceError if another run writes it, Stopped when interrupted, IncompleteError if the audit fails.
    """
    from hpcbackmap.store.store import open_store

    source = open_store(campaign.backmap.input or campaign.store_place())
    result = descend(campaign, source, comm, time_limit, part, pipeline, device=device)
    if comm.rank == 0:
        unrelaxed = result.get("relaxation", {}).get("unrelaxed", [])
        for word, items in (("quarantined", result["quarantined"]), ("not relaxed", unrelaxed)):
            for item in items:
                log.warning(
                    "%s: %s frame %d member %d: %s",
                    word, item["system"], item["frame"], item["member"], item["reason"],
                )  # fmt: skip
    return result


class AnotherPlan(OutputError):
    """An output is there that was made otherwise. difference: of the plans, in words."""

    def __init__(self, output: Path, difference: str):
        super().__init__(
            f"{output} was made by another plan: {difference}; choose another backmap.output or remove it"
        )
        self.output, self.difference = output, difference

    def __reduce__(self) -> tuple[type["AnotherPlan"], tuple[Path, str]]:
        return AnotherPlan, (self.output, self.difference)


def descend(
    campaign: Campaign,
    source: Source,
    comm: Comm,
    time_limit: float | None = None,
    part: tuple[int, int] = (0, 1),
    pipeline: list[int] | None = None,
    plain: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """`backmap` of the frames of ``source``. plain: into a `Workspace`. device: ``auto``, ``cpu``, ``cuda``."""
    require_openmm(campaign.backmap.relax, "backmap.relax")
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    start_resolution(campaign, source)
    output, on = campaign.path(campaign.backmap.output), _device(comm, device)
    stages = load_chain(stage_folders(campaign), campaign.descent())
    if campaign.backmap.reference:
        stages = _guided(campaign, stages, source, comm)
    if campaign.backmap.secondary_structure:
        stages = _told(campaign, stages, comm)
    draws = list(campaign.draws().values())
    frames = chosen_frames(campaign, source)
    chains = _chains(stages, source, frames, on, draws)
    groups = Groups(pipeline, len(stages), comm.rank, comm.size) if pipeline else None
    plan = on_first_rank(
        comm, lambda: _plan_and_output(campaign, source, frames, chains, output, comm.size, plain)
    )
    with StopSignals() as stop, ExitStack() as held:
        sign = []
        on_first_rank(comm, lambda: sign.append(held.enter_context(only_run(output, *part))))
        todo = _missing(plan, output, comm, part)
        if todo:
            if comm.rank == 0:
                sign[0]()
                _announce(plan, comm, on, todo)
            _work(plan, source, output, chains, comm, todo, stop, deadline, groups)
        else:
            log.info("%s: nothing to do", output)
        comm.barrier()
        return on_first_rank(
            comm, lambda: _finish(plan, source, output, part, time.monotonic() - started)
        )


def _told(campaign: Campaign, stages: list[Any], comm: Comm) -> list[Any]:
    """Stages with the secondary structure that the campaign tells. Collective."""
    from hpcbackmap.backmapping.secondary_structure import read_secondary_structure, told

    given = str(campaign.backmap.secondary_structure)
    return told(
        stages, on_first_rank(comm, lambda: read_secondary_structure(given, campaign.path("")))
    )


def _guided(campaign: Campaign, stages: list[Any], source: Source, comm: Comm) -> list[Any]:
    """Stages with the campaign's reference; how it lies on the chains is said. Collective."""
    from hpcbackmap.backmapping.reference import guided, read_reference

    path = str(campaign.path(str(campaign.backmap.reference)))
    reference = on_first_rank(comm, lambda: read_reference(path))
    found = guided(stages, reference)

    def say() -> None:
        for name in chosen_frames(campaign, source):
            for words in reference.placed(source.system(name).ladder.topology).words:
                log.info("%s", words)

    on_first_rank(comm, say)
    return found


def _chains(
    stages: list["Stage[Any]"],
    source: Source,
    names: Iterable[str],
    device: "torch.device",
    draws: list[int],
) -> Chains:
    try:
        return Chains(stages, lambda name: source.system(name).ladder, names, device, draws)
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from None


def _device(comm: Comm, wanted: str) -> "torch.device":
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # use_deterministic_algorithms does the same and loads torch's compilers
    torch.set_deterministic_debug_mode("warn")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda: this machine has no GPU that PyTorch can use")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", comm.local_rank % torch.cuda.device_count())


def _plan_and_output(
    campaign: Campaign,
    source: Source,
    frames: dict[str, list[list[int]]],
    chains: Chains,
    output: Path,
    ranks: int,
    plain: bool,
) -> Plan:
    """The plan, and an output that was made by it."""
    there = stored_plan(output)
    given = (campaign, source, stage_folders(campaign), frames, chains, ranks)
    plan = make_plan(*given, there)
    if there is None:
        create_output(campaign, plan, source, output, plain)
        there = stored_plan(output) or {}
        plan = make_plan(*given, there)  # another run may have been faster, with its own sizes
    difference = plan.first_difference(there)
    if difference:
        raise AnotherPlan(output, difference)
    return plan


def _missing(plan: Plan, output: Path, comm: Comm, part: tuple[int, int]) -> list[Shard]:
    """Shards still to do, in order; the ranks share the reading of what is there. Collective."""
    shards = plan.part(*part)
    records, store = Records(plan, output), open_output(output)
    mine = [records.is_done(store, shard) for shard in shards[comm.rank :: comm.size]]
    parts = comm.bcast(comm.gather(mine))
    return [shard for i, shard in enumerate(shards) if not parts[i % comm.size][i // comm.size]]


def _announce(plan: Plan, comm: Comm, device: "torch.device", todo: list[Shard]) -> None:
    log.info(
        "backmapping %d frames x %d on %d rank(s), device %s: %d of %d shards of %d frames to do, "
        "batches of %d frames",
        plan.total_frames, plan.rows_per_frame, comm.size, device,
        len(todo), len(plan.shards), plan.shard_frames, plan.batch_frames,
    )  # fmt: skip
    if comm.size > len(todo):
        log.info("%d rank(s) have nothing to do", comm.size - len(todo))


def _work(
    plan: Plan,
    source: Source,
    output: Path,
    chains: Chains,
    comm: Comm,
    todo: list[Shard],
    stop: StopSignals,
    deadline: float | None,
    groups: Groups | None,
) -> None:
    structures = sum(shard.stop - shard.start for shard in todo) * plan.rows_per_frame
    counter = comm.counter()
    link: Link | None = None
    used: Chains | RemoteChains = chains
    if groups and not isinstance(comm, MpiComm):
        raise ConfigError("backmap: --pipeline needs ranks under mpirun")
    if groups and isinstance(comm, MpiComm) and groups.upstream is not None and groups.writes:
        link = Link(comm, groups.upstream)
        used = RemoteChains(chains, link)
    with Progress(comm, structures, "structures", given_up="quarantined") as progress:
        if groups and isinstance(comm, MpiComm) and not groups.writes:
            serve(groups, chains, comm)
        else:
            journal = Records(plan, output).folder / f"rank{comm.rank}.jsonl"
            worker = Worker(plan, source, output, used, stop, journal, progress.tell)
            worker.run(todo, counter, deadline)
        if link:
            link.close()
        counter.free()


def _finish(
    plan: Plan, source: Source, output: Path, part: tuple[int, int], seconds: float
) -> dict[str, Any]:
    """Audit the records; the summary. Raises Stopped if this run leaves work."""
    records = Records(plan, output)
    missing, quarantined = records.audit()
    mine = plan.part(*part)
    left = sum(not records.path(shard).exists() for shard in mine)
    if left:
        raise Stopped(
            f"{output}: stopped with {left} of {len(mine)} shards to do; the same command continues"
        )
    store = open_output(output)
    found = {} if is_workspace(output) else of_structures(plan, source, records)
    if not missing:
        store.mark_complete(records.checksums(), **_for_readers(found))
    return {
        "output": str(output),
        "frames": plan.total_frames,
        "members": plan.rows_per_frame,
        "structures": plan.total_frames * plan.rows_per_frame,
        "shards_missing": missing,
        **found,
        "quarantined": quarantined,
        "seconds": round(seconds, 2),
    }


def _for_readers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What of it a finished store keeps, under ``structures``: no list that grows with the frames."""
    relaxation = {
        key: value for key, value in found.get("relaxation", {}).items() if key != "unrelaxed"
    }
    kept = found | ({"relaxation": relaxation} if relaxation else {})
    return {"structures": kept} if kept else {}
