"""The MPI driver: ranks take shards from a shared counter, run the whole chain, write each shard whole."""

import logging
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from hpcbackmap.backmapping.chain import Chain, load_chain
from hpcbackmap.backmapping.pipeline import Groups, Link, RemoteChain, serve
from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.backmapping.planning import (
    chosen_frames,
    make_plan,
    stage_folders,
    start_resolution,
)
from hpcbackmap.backmapping.progress import Progress
from hpcbackmap.backmapping.records import Records, only_run
from hpcbackmap.backmapping.worker import Worker
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.config.load import resolved_yaml
from hpcbackmap.runtime.errors import InputError, OutputError, Stopped
from hpcbackmap.runtime.mpi import on_first_rank
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.store.store import FrameStore, create_store, open_store

__all__ = ["backmap"]

log = logging.getLogger(__name__)


def backmap(
    campaign: Campaign,
    comm,
    time_limit: float | None = None,
    part: tuple[int, int] = (0, 1),
    pipeline: list[int] | None = None,
) -> dict:
    """Backmap the campaign's coarse frames; collective over ``comm``.

    time_limit: seconds after which no shard is begun that would not end before. part: (i, n), the i-th of n
    equal parts of the shards, from 0, for runs that share the work; default: all. pipeline: ranks of each
    stage, coarse to fine; default: every rank runs the whole chain. Returns counts and the output path.
    Raises InputError for an unfitting input or artifact, OutputError for an output made by another plan,
    ResourceError if another run writes it, Stopped when interrupted, IncompleteError if the audit fails.
    """
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    source = open_store(campaign.backmap.input or campaign.store_place())
    start_resolution(campaign, source)
    output, device = campaign.path(campaign.backmap.output), _device(comm)
    stages = load_chain(stage_folders(campaign), campaign.descent())
    draws = list(campaign.draws().values())
    frames = chosen_frames(campaign, source)
    chains = {name: _chain(stages, source, name, device, draws) for name in frames}
    groups = Groups(pipeline, len(stages), comm.rank, comm.size) if pipeline else None
    plan = on_first_rank(
        comm, lambda: _plan_and_output(campaign, source, frames, chains, output, comm.size)
    )
    with StopSignals() as stop, ExitStack() as held:
        sign = []
        on_first_rank(comm, lambda: sign.append(held.enter_context(only_run(output, *part))))
        todo = _missing(plan, output, comm, part)
        if todo:
            if comm.rank == 0:
                sign[0]()
                _announce(plan, comm, device, todo)
            _work(plan, source, output, chains, comm, todo, stop, deadline, groups)
        else:
            log.info("%s: nothing to do", output)
        comm.barrier()
        return on_first_rank(comm, lambda: _finish(plan, output, part, time.monotonic() - started))


def _chain(stages, source: FrameStore, system: str, device, draws) -> Chain:
    try:
        return Chain(stages, source.system(system).ladder, device, draws)
    except InputError as error:
        raise InputError(f"{source.path}: system {system}: {error}") from None


def _device(comm):
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", comm.local_rank % torch.cuda.device_count())


def _plan_and_output(
    campaign, source: FrameStore, frames, chains, output: Path, ranks: int
) -> Plan:
    """The plan, and an output that was made by it."""
    there = _stored_plan(output)
    given = (campaign, source, stage_folders(campaign), frames, chains, ranks)
    plan = make_plan(*given, there)
    if there is None:
        _create(campaign, plan, source, output)
        there = _stored_plan(output)
        plan = make_plan(*given, there)  # another run may have been faster, with its own sizes
    difference = plan.first_difference(there)
    if difference:
        raise OutputError(
            f"{output} was made by another plan: {difference}; choose another backmap.output or remove it"
        )
    return plan


def _stored_plan(output: Path) -> dict | None:
    if not output.exists():
        return None
    store = open_store(output, incomplete_ok=True)
    return store.attributes.get("provenance", {}).get("plan", {})


def _create(campaign: Campaign, plan: Plan, source: FrameStore, output: Path) -> None:
    """An empty output. If another run was faster, its output stays."""
    scratch = output.with_name(f"{output.name}.{os.getpid()}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    create_store(
        str(scratch),
        {name: source.system(name).ladder for name in plan.frames},
        {name: plan.n_frames(name) * plan.rows_per_frame for name in plan.frames},
        plan.resolutions,
        campaign.store.model_copy(update={"quantise": False}),
        {"plan": plan.to_dict()},
        shard_frames=plan.shard_frames * plan.rows_per_frame,
        observables={"source_frame": "int64", "member": "int64"},
    )
    Records(plan, scratch).folder.mkdir()
    (scratch / ".campaign.yaml").write_text(resolved_yaml(campaign))
    try:
        os.rename(scratch, output)
    except OSError:
        shutil.rmtree(scratch)
        if not output.exists():
            raise


def _missing(plan: Plan, output: Path, comm, part: tuple[int, int]) -> list[Shard]:
    """Shards still to do, in order; the ranks share the reading of what is there. Collective."""
    shards = plan.part(*part)
    records, store = Records(plan, output), open_store(output, incomplete_ok=True)
    mine = [records.is_done(store, shard) for shard in shards[comm.rank :: comm.size]]
    parts = comm.bcast(comm.gather(mine))
    return [shard for i, shard in enumerate(shards) if not parts[i % comm.size][i // comm.size]]


def _announce(plan: Plan, comm, device, todo: list[Shard]) -> None:
    log.info(
        "backmapping %d frames x %d on %d rank(s), device %s: %d of %d shards of %d frames to do, "
        "batches of %d frames",
        plan.total_frames, plan.rows_per_frame, comm.size, device,
        len(todo), len(plan.shards), plan.shard_frames, plan.batch_frames,
    )  # fmt: skip
    if comm.size > len(todo):
        log.info("%d rank(s) have nothing to do", comm.size - len(todo))


def _work(plan, source, output, chains, comm, todo, stop, deadline, groups: Groups | None) -> None:
    structures = sum(shard.stop - shard.start for shard in todo) * plan.rows_per_frame
    progress, counter = Progress(comm, structures), comm.counter()
    link = None
    if groups and groups.upstream is not None and groups.writes:
        link = Link(comm, groups.upstream)
        chains = {name: RemoteChain(chain, name, link) for name, chain in chains.items()}
    if groups and not groups.writes:
        serve(groups, chains, comm)
    else:
        journal = Records(plan, output).folder / f"rank{comm.rank}.jsonl"
        worker = Worker(plan, source, output, chains, stop, journal, progress.tell)
        worker.run(todo, counter, deadline)
    if link:
        link.close()
    counter.free()
    progress.close()


def _finish(plan: Plan, output: Path, part: tuple[int, int], seconds: float) -> dict:
    """Audit the records; the summary. Raises Stopped if this run leaves work."""
    records = Records(plan, output)
    missing, quarantined = records.audit()
    mine = plan.part(*part)
    left = sum(not records.path(shard).exists() for shard in mine)
    if left:
        raise Stopped(
            f"{output}: stopped with {left} of {len(mine)} shards to do; the same command continues"
        )
    store = open_store(output, incomplete_ok=True)
    if not missing:
        store.mark_complete(records.checksums())
    for item in quarantined:
        log.warning("quarantined: %(system)s frame %(frame)d member %(member)d: %(reason)s", item)
    return {
        "output": str(output),
        "frames": plan.total_frames,
        "members": plan.rows_per_frame,
        "structures": plan.total_frames * plan.rows_per_frame,
        "shards_missing": missing,
        "quarantined": quarantined,
        "seconds": round(seconds, 2),
    }
