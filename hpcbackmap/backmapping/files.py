"""`backmap FILE`: the driver with files of a user at the front and files at the end.

An implicit campaign with the shipped stages runs through plan, shards, records and audit like any other. Its
shards stand in a hidden folder beside the output until all are there and delivered, so that a run that was
killed continues, with any number of ranks.
"""

import json
import logging
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap import __version__
from hpcbackmap.backmapping.deliver import Pieces, deliver
from hpcbackmap.backmapping.driver import AnotherPlan, descend
from hpcbackmap.backmapping.implied_campaign import implied_campaign
from hpcbackmap.backmapping.opening import open_source
from hpcbackmap.backmapping.output import stored_plan
from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.records import only_run
from hpcbackmap.backmapping.request import STORE, Request, Targets, check_request
from hpcbackmap.backmapping.source import FileSource
from hpcbackmap.backmapping.summary import Finished, NothingMade, places, summarise
from hpcbackmap.backmapping.workspace import open_workspace
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError, ResourceError
from hpcbackmap.runtime.files import Lock, write_whole
from hpcbackmap.runtime.mpi import Comm, on_first_rank
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.trajectories.companion import names_same_atoms

__all__ = ["backmap_files", "backmap_in_memory"]

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import mdtraj


def backmap_files(
    inputs: "list[str] | mdtraj.Trajectory",
    request: Request,
    comm: Comm,
    time_limit: float | None = None,
    part: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Heavy atoms for every frame of ``inputs`` into files; collective over ``comm``.

    inputs: files of one topology, in order, or a trajectory that a program has at hand. time_limit, part: see
    `driver.backmap`. Returns what a user is told: counts, what the structures look like, where they are. Raises
    ConfigError, InputError, OutputError, ResourceError for what cannot be done, Stopped when interrupted; the
    same command continues.
    """
    started = time.monotonic()
    check_request(request, inputs if isinstance(inputs, list) else [])
    source = on_first_rank(comm, lambda: open_source(inputs, request))
    targets = request.targets
    on_first_rank(comm, lambda: _prepare(request, targets, source))
    plain = targets.output.suffix != STORE
    with _without_trace(targets.scratch, comm):
        done = _descend(source, request, targets.scratch, plain, comm, time_limit, part)
    if done.missing:
        return {"output": str(targets.output), "shards_missing": done.missing}
    summary = on_first_rank(comm, lambda: _told(done, source, targets))
    with only_delivery(targets.scratch, comm) as mine:
        if mine:
            _deliver(done, source, request, comm)
            summary["seconds"] = round(time.monotonic() - started, 2)
            on_first_rank(comm, lambda: _leave(targets, request, done.plan, summary))
    return summary


def backmap_in_memory(
    inputs: "list[str] | mdtraj.Trajectory", request: Request, comm: Comm
) -> tuple[list["mdtraj.Trajectory"], dict[str, Any]]:
    """The same as trajectories, one for each member, and what a user is told.

    Structures that could not be made are left out of them.
    """
    check_request(request, inputs if isinstance(inputs, list) else [])
    source = open_source(inputs, request)
    with tempfile.TemporaryDirectory(prefix="hpcbackmap-") as folder:
        done = _descend(source, request, Path(folder), True, comm)
        summary = summarise(done, source)
        made = open_workspace(done.made).system(source.only.name)
        pieces = Pieces(done.plan, made, source.only, request.names)
        return pieces.trajectories(), summary


@contextmanager
def _without_trace(folder: Path, comm: Comm) -> "Iterator[None]":
    """What is refused before anything was made leaves no folder behind."""
    try:
        yield
    except (ConfigError, InputError):
        if comm.rank == 0:
            with suppress(OSError):  # it is not empty: what was made stays
                folder.rmdir()
        raise


def _descend(
    source: FileSource,
    request: Request,
    folder: Path,
    plain: bool,
    comm: Comm,
    time_limit: float | None = None,
    part: tuple[int, int] = (0, 1),
) -> Finished:
    """Structures of all frames of ``source``, in ``folder``; collective."""
    campaign = implied_campaign(request, source, folder)
    made = campaign.path(campaign.backmap.output)
    try:
        result = descend(
            campaign, source, comm, time_limit, part, plain=plain, device=request.device
        )
    except AnotherPlan as error:
        # the other run may be at work: then it is not --force that helps, and nothing is removed
        on_first_rank(comm, lambda: _require_idle((made, folder), request.output or folder))
        if not request.force:
            raise OutputError(
                f"{folder}: a run that has not ended had another {error.difference}; give the same options to "
                "continue it, or --force to start anew"
            ) from None
        on_first_rank(comm, lambda: shutil.rmtree(made))
        result = descend(
            campaign, source, comm, time_limit, part, plain=plain, device=request.device
        )
    plan = Plan(**(stored_plan(made) or {}))
    return Finished(plan, made, result["shards_missing"], result["quarantined"])


def _require_idle(folders: tuple[Path, ...], output: Path) -> None:
    """Raises ResourceError that names a run which fills or delivers what is in ``folders``."""
    for folder in folders:
        if (folder / ".lock").exists():
            Lock.take(folder / ".lock", output).close()


@contextmanager
def only_delivery(folder: Path, comm: Comm) -> "Iterator[bool]":
    """Whether this run delivers: of parts that end together, one does."""
    with ExitStack() as held:

        def lock() -> bool:
            try:
                sign = held.enter_context(only_run(folder, 0, 1))
                sign()
            except (ResourceError, OutputError):
                if folder.exists() and not (folder / ".lock").exists():
                    raise
                log.info("%s: another part of the run delivers it", folder)
                return False
            return True

        yield on_first_rank(comm, lock)


def _prepare(request: Request, targets: Targets, source: FileSource) -> None:
    """The folder of a run that is to be begun or continued."""
    if targets.topology and not request.force:
        more = request.hydrogens or request.keep_others
        names_same_atoms(targets.topology, source.only.ladder.topology.to_mdtraj(), more)
    targets.scratch.mkdir(exist_ok=True)


def _told(done: Finished, source: FileSource, targets: Targets) -> dict[str, Any]:
    """`summarise` and where things are. A run that made nothing leaves nothing that would be in the way of one
    with better options.
    """
    try:
        return summarise(done, source) | places(targets, done.plan)
    except NothingMade:
        shutil.rmtree(targets.scratch, ignore_errors=True)
        raise


def _deliver(done: Finished, source: FileSource, request: Request, comm: Comm) -> None:
    targets = request.targets
    if targets.output.suffix == STORE:
        on_first_rank(comm, lambda: _move(done.made, targets.output))
        return
    made = open_workspace(done.made).system(source.only.name)
    pieces = Pieces(done.plan, made, source.only, request.names)
    with StopSignals() as signals:
        deliver(pieces, targets, comm, signals)


def _move(made: Path, output: Path) -> None:
    if output.exists():
        shutil.rmtree(output)
    made.rename(output)


def _leave(targets: Targets, request: Request, plan: Plan, summary: dict[str, Any]) -> None:
    """The record of the run; then what it worked in goes."""
    options = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(request).items()
    }
    record = {"hpcbackmap": __version__, "options": options, "plan": plan.to_dict(), "run": summary}
    write_whole(targets.record, json.dumps(record, indent=1, default=str) + "\n")
    shutil.rmtree(targets.scratch, ignore_errors=True)
