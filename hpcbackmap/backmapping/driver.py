"""The MPI driver: ranks take shards from a shared counter, run the whole chain, write each shard whole.

A shard is done when its record exists: the record is written (temporary name, fsync, rename) only after
the shard's data. A rerun checks the records against the data and does what is missing.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path

import numpy as np

from hpcbackmap.backmapping.chain import Chain, load_chain
from hpcbackmap.backmapping.plan import Plan, Shard
from hpcbackmap.config import Campaign, resolved_yaml
from hpcbackmap.errors import (
    ConfigError,
    IncompleteError,
    InputError,
    OutputError,
    Stopped,
)
from hpcbackmap.frames.split import split_frames
from hpcbackmap.frames.store import FrameStore, create_store, open_store
from hpcbackmap.stopping import StopSignals

__all__ = ["backmap"]

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0


def backmap(campaign: Campaign, comm, time_limit: float | None = None) -> dict:
    """Backmap the campaign's coarse frames; collective over ``comm``.

    time_limit: seconds after which no further shard is begun. Returns counts and the output path.
    Raises InputError for an unfitting input or artifact, OutputError for an output made by another plan,
    Stopped when interrupted, IncompleteError if the final audit fails.
    """
    with StopSignals() as stop:
        return _backmap(campaign, comm, time_limit, stop)


def _backmap(campaign: Campaign, comm, time_limit: float | None, stop: StopSignals) -> dict:
    started = time.monotonic()
    source = open_store(_input_path(campaign))
    folders = _artifacts(campaign)
    device = _device(comm)
    plan = _plan(campaign, source, folders, device.type)
    output = campaign.path(campaign.backmap.output)
    stages = load_chain(folders, campaign.rungs())
    chains = {name: Chain(stages, source.system(name).ladder, device) for name in plan.frames}
    todo = comm.bcast(_prepare(campaign, plan, source, output) if comm.rank == 0 else None)
    if not todo:
        log.info("%s: nothing to do", output)
    else:
        if comm.rank == 0:
            _announce(plan, comm, device, todo)
        worker = _Worker(campaign, plan, source, output, chains, comm, stop)
        worker.run(todo, None if time_limit is None else started + time_limit)
    comm.barrier()
    result = _finish(plan, output, time.monotonic() - started) if comm.rank == 0 else None
    result = comm.bcast(result)
    if isinstance(result, Exception):
        raise result
    return result


def _input_path(campaign: Campaign) -> str:
    return campaign.backmap.input or str(campaign.path(campaign.store.path))


def _artifacts(campaign: Campaign) -> dict[str, Path]:
    folders = {}
    for rung in campaign.rungs():
        if rung not in campaign.stages:
            raise ConfigError(
                f"stages: no stage for rung {rung}; the ladder cannot be climbed down"
            )
        given = campaign.stages[rung].artifact
        folders[rung] = Path(given) if given else campaign.path(f"stages/{rung}/artifact")
    return folders


def _device(comm):
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", comm.local_rank % torch.cuda.device_count())


def _plan(campaign: Campaign, source: FrameStore, folders: dict[str, Path], device: str) -> Plan:
    coarsest = campaign.resolutions()[-1]
    if coarsest not in source.resolutions:
        raise InputError(
            f"{source.path}: has {', '.join(source.resolutions)}, the ladder starts from {coarsest}"
        )
    settings = campaign.backmap
    return Plan(
        input=source.digest,
        stages={rung: _artifact_digest(folder) for rung, folder in folders.items()},
        resolutions=campaign.resolutions()[:-1],
        frames=_chosen_frames(campaign, source),
        members=settings.members,
        mode=settings.mode,
        seed=settings.seed,
        batch_frames=settings.batch_frames,
        shard_frames=settings.shard_frames,
        device=device,
    )


def _chosen_frames(campaign: Campaign, source: FrameStore) -> dict[str, list[tuple[int, int]]]:
    """Held-out frames of the campaign's own store, or every frame of a store that the user brings."""
    if campaign.backmap.input:
        ranges = {name: [(0, source.system(name).n_frames)] for name in source.systems}
    else:
        ranges = {}
        for part in split_frames(source, campaign.split)["test"]:
            ranges.setdefault(part.system, []).append((part.start, part.stop))
    ranges = {name: [r for r in parts if r[1] > r[0]] for name, parts in ranges.items()}
    ranges = {name: parts for name, parts in ranges.items() if parts}
    if not ranges:
        raise InputError(
            f"{source.path}: no frames to backmap; is the test fraction of the split zero?"
        )
    return ranges


def _artifact_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("model.safetensors", "config.json"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise InputError(
                f"{folder / name}: {error.strerror}; train this stage first, or give stages.*.artifact"
            ) from None
    return digest.hexdigest()


def _records(output: Path) -> Path:
    return output / ".shards"


def _record_path(output: Path, shard: Shard) -> Path:
    return _records(output) / f"{shard.system}.{shard.number:08d}.json"


def _prepare(campaign: Campaign, plan: Plan, source: FrameStore, output: Path) -> list[int]:
    """Rank 0: make or reopen the output; numbers of the shards still to do."""
    if output.exists():
        store = open_store(str(output), incomplete_ok=True)
        difference = plan.first_difference(store.attributes.get("provenance", {}).get("plan", {}))
        if difference:
            raise OutputError(
                f"{output} was made by another plan: {difference}; choose another backmap.output or remove it"
            )
        done = [_is_done(plan, store, output, shard) for shard in plan.shards]
        return [i for i, ready in enumerate(done) if not ready]
    scratch = output.with_name(output.name + ".part")
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
    _records(scratch).mkdir()
    (scratch / ".campaign.yaml").write_text(resolved_yaml(campaign))
    os.replace(scratch, output)
    return list(range(len(plan.shards)))


def _is_done(plan: Plan, store: FrameStore, output: Path, shard: Shard) -> bool:
    try:
        record = json.loads(_record_path(output, shard).read_text())
        if record["plan"] != plan.digest:
            return False
        return record["sha256"] == _data_digest(plan, store, shard)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, InputError) as error:
        log.warning(
            "shard %s/%d is damaged and will be computed again: %s",
            shard.system,
            shard.number,
            error,
        )
        return False


def _data_digest(plan: Plan, store: FrameStore, shard: Shard) -> str:
    digest = hashlib.sha256()
    rows = (shard.start * plan.rows_per_frame, shard.stop * plan.rows_per_frame)
    system = store.system(shard.system)
    for resolution in plan.resolutions:
        digest.update(system.read(resolution, *rows).tobytes())
    for name in system.observables:
        digest.update(system.read_observable(name, *rows).tobytes())
    return digest.hexdigest()


def _announce(plan: Plan, comm, device, todo: list[int]) -> None:
    log.info(
        "backmapping %d frames x %d on %d rank(s), device %s: %d of %d shards to do",
        sum(map(plan.n_frames, plan.frames)), plan.rows_per_frame, comm.size, device,
        len(todo), len(plan.shards),
    )  # fmt: skip


class _Worker:
    """One rank's share of the run."""

    def __init__(self, campaign, plan, source, output, chains, comm, stop):
        self.plan, self.source, self.output, self.comm = plan, source, output, comm
        self.coarsest = campaign.resolutions()[-1]
        self.store = open_store(str(output), incomplete_ok=True)
        self.chains = chains
        self.stop = stop
        self.begun = time.monotonic()
        self.journal = _records(output) / f"rank{comm.rank}.jsonl"

    def run(self, todo: list[int], deadline: float | None) -> None:
        """Take shards until none is left, the deadline is too near, or a stop signal came."""
        counter = self.comm.counter()
        longest, reported = 0.0, time.monotonic()
        while self.stop.received is None and (k := counter.next()) < len(todo):
            begun = time.monotonic()
            if deadline is not None and begun + 1.2 * longest > deadline:
                break
            self._shard(self.plan.shards[todo[k]])
            longest = max(longest, time.monotonic() - begun)
            if self.comm.rank == 0 and time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                self._report(len(todo), reported - self.begun)
        counter.free()

    def _report(self, todo: int, seconds: float) -> None:
        left = len(self.plan.shards) - len(list(_records(self.output).glob("*.json")))
        remaining = seconds * left / max(1, todo - left)
        log.info("%d of %d shards to do, about %.0f s", left, len(self.plan.shards), remaining)

    def _shard(self, shard: Shard) -> None:
        begun = time.monotonic()
        plan, system = self.plan, self.source.system(shard.system)
        local = plan.local_frames(shard)
        coarse = _read_frames(system, self.coarsest, local)
        frames = [system.first_frame + i for i in local]
        quarantined = []
        blocks = {name: [] for name in plan.resolutions}
        for start in range(0, len(local), plan.batch_frames):
            part = slice(start, start + plan.batch_frames)
            levels = self._batch(shard.system, coarse[part], frames[part], quarantined)
            for name in plan.resolutions:
                blocks[name].append(levels[name])
        arrays = {name: np.concatenate(parts) for name, parts in blocks.items()}
        rows = plan.rows_per_frame
        observables = {
            "source_frame": np.repeat(np.array(frames, dtype=np.int64), rows),
            "member": np.tile(np.arange(rows, dtype=np.int64), len(frames)),
        }
        self.store.system(shard.system).write_shard(shard.number, arrays, observables)
        self._publish(shard, quarantined, time.monotonic() - begun)

    def _batch(self, system, coarse, frames, quarantined) -> dict[str, np.ndarray]:
        """All members of a batch of frames, rows ordered (frame, member): [F * members, N, 3]."""
        plan = self.plan
        bad = ~np.isfinite(coarse).all(axis=(1, 2))
        safe = np.where(bad[:, None, None], coarse[~bad][:1] if (~bad).any() else 0.0, coarse)
        members = [None] if plan.mode else range(plan.members)
        chain = self.chains[system]
        drawn = chain.run_members(safe.astype(np.float32), frames, members, plan.seed)
        levels = {}
        for name in plan.resolutions:
            stacked = np.stack([levels_[name] for levels_ in drawn], axis=1)
            stacked[bad] = np.nan
            levels[name] = stacked.reshape(-1, *stacked.shape[2:])
        self._note_bad(system, levels, frames, bad, quarantined)
        return levels

    def _note_bad(self, system, levels, frames, bad, quarantined) -> None:
        rows = self.plan.rows_per_frame
        for i, frame in enumerate(frames):
            for member in range(rows):
                finite = all(np.isfinite(x[i * rows + member]).all() for x in levels.values())
                if not finite:
                    reason = "input is not finite" if bad[i] else "output is not finite"
                    quarantined.append(
                        {"system": system, "frame": int(frame), "member": member, "reason": reason}
                    )

    def _publish(self, shard: Shard, quarantined: list[dict], seconds: float) -> None:
        """Read the shard back and declare it done."""
        rows = (shard.stop - shard.start) * self.plan.rows_per_frame
        record = {
            "plan": self.plan.digest,
            "rows": rows,
            "sha256": _data_digest(self.plan, self.store, shard),
            "quarantined": quarantined,
        }
        _write_durably(_record_path(self.output, shard), json.dumps(record))
        with self.journal.open("a") as journal:
            entry = {"shard": f"{shard.system}/{shard.number}", "rows": rows, "seconds": seconds}
            journal.write(json.dumps(entry) + "\n")


def _read_frames(system, resolution: str, local: list[int]) -> np.ndarray:
    """Frames at local indices that come in few contiguous runs: float32 [F, B, 3]."""
    pieces, start = [], 0
    for i in range(1, len(local) + 1):
        if i == len(local) or local[i] != local[i - 1] + 1:
            pieces.append(system.read(resolution, local[start], local[i - 1] + 1))
            start = i
    return np.concatenate(pieces)


def _write_durably(path: Path, text: str) -> None:
    scratch = path.with_suffix(".part")
    try:
        with scratch.open("w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def _finish(plan: Plan, output: Path, seconds: float) -> dict | Exception:
    """Rank 0: audit the records; the summary, or the error that every rank raises."""
    rows, quarantined, missing = 0, [], 0
    for shard in plan.shards:
        try:
            record = json.loads(_record_path(output, shard).read_text())
        except FileNotFoundError:
            missing += 1
            continue
        rows += record["rows"]
        quarantined += record["quarantined"]
    if missing:
        return Stopped(
            f"{output}: stopped with {missing} of {len(plan.shards)} shards to do; the same command continues"
        )
    expected = sum(map(plan.n_frames, plan.frames)) * plan.rows_per_frame
    if rows != expected:
        return IncompleteError(f"{output}: {rows} structures written, {expected} expected")
    store = open_store(str(output), incomplete_ok=True)
    if not store.complete:
        store.mark_complete()
    for item in quarantined:
        log.warning("quarantined: %(system)s frame %(frame)d member %(member)d: %(reason)s", item)
    return _summary(plan, output, quarantined, seconds)


def _summary(plan: Plan, output: Path, quarantined: list[dict], seconds: float) -> dict:
    frames = sum(map(plan.n_frames, plan.frames))
    return {
        "output": str(output),
        "frames": frames,
        "members": plan.rows_per_frame,
        "structures": frames * plan.rows_per_frame,
        "quarantined": quarantined,
        "seconds": round(seconds, 2),
    }
