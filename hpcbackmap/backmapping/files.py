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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcbackmap import __version__
from hpcbackmap.backmapping.bead_source import bead_source, is_ultra_coarse
from hpcbackmap.backmapping.deliver import Pieces, deliver
from hpcbackmap.backmapping.disulphides import with_disulphides
from hpcbackmap.backmapping.driver import AnotherPlan, descend
from hpcbackmap.backmapping.others import others_of
from hpcbackmap.backmapping.output import stored_plan
from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.backmapping.reading import (
    chosen_particles,
    require_known_residues,
    with_sequence,
)
from hpcbackmap.backmapping.records import only_run
from hpcbackmap.backmapping.request import STORE, Request, Targets, check_request
from hpcbackmap.backmapping.source import FileSource, file_source
from hpcbackmap.backmapping.summary import Finished, NothingMade, left_out_of, places, summarise
from hpcbackmap.backmapping.workspace import open_workspace
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.protein.sequences import sequence_option
from hpcbackmap.resolution.build import runs_spec
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError, ResourceError
from hpcbackmap.runtime.files import Lock, write_whole
from hpcbackmap.runtime.mpi import Comm, on_first_rank
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.trajectories.companion import names_same_atoms
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["backmap_files", "backmap_in_memory"]

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import mdtraj

    from hpcbackmap.trajectories.frames import FrameReader
    from hpcbackmap.trajectories.particles import Particles

IN_MEMORY = "trajectory"
"""How messages call a trajectory that is no file."""
SAMPLE = 5
"""Frames of it that decide which neighbours are bonded."""
BATCH_RESIDUES = {"cpu": 1000, "cuda": 20000}
"""Residues that go through the network together, by device: larger batches are no faster."""
HELD_RESIDUES = 200_000
"""Residues of all members of a batch: some 20 MB."""
SHARDS = 64
SHARD_RESIDUES = (4000, 100_000)
"""A run is cut into about so many shards, each of so many residues of structures: seconds to a minute."""
RELAXED_RESIDUES = (1000, 20_000)
"""The same of structures that are relaxed, which takes 6 ms a residue."""
SHARD_BYTES = 64e6
ATOM_BYTES = 8 * frame_bytes(1)
"""Of the heavy atoms of a residue, about."""


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
    campaign = _campaign(request, source, folder)
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


def open_source(inputs: "list[str] | mdtraj.Trajectory", request: Request) -> FileSource:
    """What files hold, or a trajectory of mdtraj, read as the request says; said in the log.

    Raises InputError and ConfigError, one line each.
    """
    from hpcbackmap.trajectories.formats import require_format
    from hpcbackmap.trajectories.frames import FramesInMemory, open_files
    from hpcbackmap.trajectories.particles import (
        particles_from_mdtraj,
        particles_of_chains,
        read_particles,
    )
    from hpcbackmap.trajectories.reader import holds_topology

    if not isinstance(inputs, list):
        cells, few = inputs.unitcell_vectors, slice(0, SAMPLE)
        particles = particles_from_mdtraj(
            inputs.topology,
            IN_MEMORY,
            inputs.xyz[few],
            None if cells is None else cells[few],
            request.molecule,
        )
        return _source(FramesInMemory(inputs), particles, IN_MEMORY, request)
    path = inputs[0]
    require_format(path)
    if request.top is None and not holds_topology(path):
        if request.sequence is None:
            raise InputError(
                f"{path}: no atom names are read from this format; give a file of the molecule that has them "
                "(PDB, mmCIF, GRO, PSF, …) with --top, or the sequence of a model of one bead per residue with "
                "--sequence"
            )
        chains = sequence_option(request.sequence)
        particles = particles_of_chains(path, chains, request.molecule, request.unit)
    else:
        particles = read_particles(path, request.top, request.molecule, request.unit)
    return _source(open_files(inputs, particles, request.unit), particles, path, request)


def _source(
    reader: "FrameReader", particles: "Particles", path: str, request: Request
) -> FileSource:
    """A source of the chosen particles of ``reader``; what was decided in reading them is said."""
    chosen = chosen_particles(particles, request.select, list(request.chains))
    options = {
        "select": request.select, "chains": list(request.chains), "sequence": request.sequence,
        "molecule": request.molecule, "unit": request.unit,
    }  # fmt: skip
    if is_ultra_coarse(request, particles.subset(chosen)):
        source = bead_source(reader, particles, path, request, options, chosen)
    elif request.bead_center != "ca":
        raise ConfigError(
            f"--bead-center {request.bead_center}: of beads of several residues; say so with --segments or "
            "--representation ucg"
        )
    else:
        if request.sequence is not None:
            particles = with_sequence(particles, request.sequence)
        require_known_residues(particles.subset(chosen))
        source = file_source(
            reader, particles, path, request.representation, request.on_bad_frame, options, chosen
        )
    source = with_disulphides(source, request.disulphides, path)
    reading, topology = source.only.reading, source.only.ladder.topology
    for word in [*particles.words, *reading.words]:
        log.info("%s", word if word.startswith(path) else f"{path}: {word}")
    for residue in range(1, topology.n_residues):
        same = topology.chain_index[residue] == topology.chain_index[residue - 1]
        if same and not topology.bonded[residue]:
            log.warning("%s: chain break before %s", path, topology.label(residue))
    others = others_of(particles, chosen, reading, request.keep_others, path)
    if others is not None:
        source = replace(source, only=replace(source.only, others=others))
        words = ", ".join(f"{count} of {name}" for name, count in others.counts.items())
        log.info("%s: passed through as they are, particles: %s", path, words or "none")
    left_out = left_out_of(source.only)
    if len(chosen) < particles.n_atoms:
        left_out["not selected"] = particles.n_atoms - len(chosen)
    log.info(
        "%s: %d residues, %d chain(s), %d frames; left out of every frame: %s",
        path, topology.n_residues, len(topology.chain_ids), reader.n_frames,
        ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "nothing",
    )  # fmt: skip
    if left_out and request.strict:
        what = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
        raise InputError(f"{path}: --strict: {what} would be left out")
    return source


def _prepare(request: Request, targets: Targets, source: FileSource) -> None:
    """The folder of a run that is to be begun or continued."""
    if targets.topology and not request.force:
        more = request.hydrogens or request.keep_others
        names_same_atoms(targets.topology, source.only.ladder.topology.to_mdtraj(), more)
    targets.scratch.mkdir(exist_ok=True)


def _campaign(request: Request, source: FileSource, folder: Path) -> Campaign:
    residues = source.only.ladder.topology.n_residues
    members = 1 if request.mode else request.members
    batch = _batch(residues, members, _device_kind(request))
    return Campaign.model_validate(
        {
            "name": "files",
            "workdir": str(folder),
            "ladder": _ladder_specs(source),
            "systems": [{"name": "trajectory", "trajectories": [source.path]}],
            "stages": _stages(request, source),
            "backmap": {
                "input": source.path,
                "output": "shards",
                "keep": ["fg"],
                "members": members,
                "mode": request.mode,
                "seed": request.seed,
                "hydrogens": request.hydrogens,
                "relax": request.relax,
                "ph": request.ph,
                "coherence": request.coherence,
                "reference": request.reference and str(Path(request.reference).resolve()),
                "secondary_structure": _secondary_structure(request),
                "frames": _frames(request.frames, source.only.n_frames),
                "batch_frames": batch,
                "shard_frames": _shard(
                    source.only.n_frames, residues * members, batch, request.relax
                ),
            },
        }
    )


def _secondary_structure(request: Request) -> str | None:
    """Its letters: a campaign looks up a file elsewhere."""
    if request.secondary_structure is None:
        return None
    from hpcbackmap.backmapping.secondary_structure import read_secondary_structure

    return read_secondary_structure(request.secondary_structure, Path()).letters


def _ladder_specs(source: FileSource) -> list[str]:
    bead_of = source.only.reading.sites.get("bead_of")
    if bead_of is None:
        return ["fg", "ca"]
    ladder = source.only.ladder
    definition = ladder.definition(ladder.resolutions[-1])
    return ["fg", "ca", runs_spec(np.bincount(bead_of).tolist(), definition)]


def _stages(request: Request, source: FileSource) -> dict[str, dict[str, object]]:
    """The shipped stages, or the user's ca-fg stage, for each rung of the way down."""
    heavy = Path(request.stages[0]) if request.stages else shipped_artifact("ca-fg")
    stages: dict[str, dict[str, object]] = {
        "ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(heavy)}
    }
    (start,) = source.resolutions
    if start != "ca":
        trace = str(shipped_artifact(kind="trace"))
        stages[f"{start}-ca"] = {"model": {"kind": "trace"}, "artifact": trace}
    return stages


def _device_kind(request: Request) -> str:
    if request.device == "cpu":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _frames(wanted: str | None, count: int) -> str | None:
    """``START:STOP:STRIDE`` without negative numbers, as a campaign has it."""
    if wanted is None:
        return None
    bounds = [int(word) if word else None for word in wanted.split(":")]
    start, stop, step = slice(*bounds).indices(count)
    if start >= stop:
        raise ConfigError(f"--frames {wanted}: leaves none of {count} frames")
    return f"{start}:{stop}:{step}"


def _batch(residues: int, members: int, device: str) -> int:
    """Frames of a batch: few where there are many members of each, which are held together."""
    frames = min(BATCH_RESIDUES[device] // residues, HELD_RESIDUES // (residues * members))
    return max(1, frames)


def _shard(frames: int, residues: int, batch: int, relax: bool) -> int:
    """Frames of a shard, whole batches. residues: of all structures of a frame. Ranks do not count, so that
    any number of them continues a run.
    """
    few, many = RELAXED_RESIDUES if relax else SHARD_RESIDUES
    wanted = min(max(frames * residues / SHARDS, few), many)
    most = max(1.0, min(wanted, SHARD_BYTES / ATOM_BYTES) / residues)
    return batch * max(1, round(most / batch))


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
