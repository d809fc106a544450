"""Heavy atoms for a C-alpha trajectory with the stage that comes with the package; no campaign."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from hpcbackmap.backmapping.chain import Chain, load_chain
from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.ingest.survey import SystemSurvey, survey_system
from hpcbackmap.protein.residues import standard_residue_name
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError, Interrupted, OutputError
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.runtime.stopping import StopSignals
from hpcbackmap.trajectories.checks import require_bends
from hpcbackmap.trajectories.particles import load_topology
from hpcbackmap.trajectories.reader import holds_topology
from hpcbackmap.trajectories.writer import TEXT, TrajectoryWriter, require_suffix

__all__ = ["backmap_trajectory", "shipped_artifact"]

log = logging.getLogger(__name__)

STAGE = "ca-fg"
BATCH_RESIDUES = {"cpu": 1000, "cuda": 20000}
"""Residues that go through the network together, by device: larger batches are no faster."""
MEMBERS_AT_ONCE = 32
"""Members that are drawn in one reading of the trajectory; each has a file open."""
REPORT_SECONDS = 5.0


def backmap_trajectory(
    trajectory: str | Path,
    output: str | Path,
    top: str | Path | None = None,
    members: int | None = 1,
    seed: int = 0,
    artifact: str | Path | None = None,
) -> dict:
    """Read the C-alpha atoms of every frame, write all heavy atoms (``.xtc``, ``.dcd``, ``.pdb``).

    members: files of one prior sample per frame, called ``NAME_1.xtc`` … if there are several; None: one
    file with the most likely structures. Beside XTC and DCD, ``NAME_top.pdb`` is their topology; one that is
    there and names the same atoms is left as it is. A member depends on seed, frame number and the frame's
    C-alpha atoms; of what else the file holds, times and unit cells are passed on. Memory does not grow
    with the trajectory. Files appear under their names when all are whole. artifact: another trained stage
    than the shipped one.
    Returns counts and file names.
    Raises InputError that names file, residue or frame for input that cannot be read, ConfigError for an
    unknown suffix or an output that would replace the input or another topology, OutputError, Interrupted after
    a stop signal (no file is left).
    """
    started = time.monotonic()
    output = Path(output)
    require_suffix(output)
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; create it first")
    targets = _targets(output, members)
    companion = None if output.suffix in TEXT else output.with_name(f"{output.stem}_top.pdb")
    _keep_input([*targets, *filter(None, [companion])], trajectory, top)
    (stage,) = load_chain({STAGE: Path(artifact or shipped_artifact(STAGE))}, [STAGE])
    survey = _survey(str(trajectory), top and str(top))
    new = companion if companion and not _same_atoms(companion, survey.topology) else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chain = Chain([stage], build_ladder(survey.topology, ["fg", "ca"]), device)
    with StopSignals() as stop, ExitStack() as stack:
        _write(chain, survey, targets, members is None, seed, new, stop, stack)
    return {
        "output": [str(target) for target in targets],
        "topology": str(companion or targets[0]),
        "frames": survey.n_frames,
        "members": len(targets),
        "residues": survey.topology.n_residues,
        "atoms": survey.topology.n_atoms,
        "seconds": round(time.monotonic() - started, 2),
    }


def _write(
    chain: Chain,
    survey: SystemSurvey,
    targets: list[Path],
    mode: bool,
    seed: int,
    companion: Path | None,
    stop: StopSignals,
    stack: ExitStack,
) -> None:
    """Members to their files, which ``stack`` names; ``companion`` gets the first structure of all."""
    topology = survey.topology.to_mdtraj()
    for begin in range(0, len(targets), MEMBERS_AT_ONCE):
        some = targets[begin : begin + MEMBERS_AT_ONCE]
        files = [stack.enter_context(TrajectoryWriter(target, topology)) for target in some]
        wanted = [None] if mode else range(begin, begin + len(some))
        if len(targets) > len(some):
            log.info("members %d to %d of %d", begin + 1, begin + len(some), len(targets))
        for coarse, numbers, times, cells in _batches(survey, chain.device):
            if stop.received:
                raise Interrupted(
                    f"{survey.files[0].path}: stopped by {stop.received}; no output is kept, the same command "
                    "starts over"
                )
            drawn = chain.run_members(coarse, numbers.tolist(), wanted, seed)
            for file, levels in zip(files, drawn, strict=True):
                _require_finite(levels["fg"], numbers, survey.files[0].path)
                file.append(levels["fg"], numbers, times, cells)
            if companion:
                first = stack.enter_context(TrajectoryWriter(companion, topology))
                first.append(
                    drawn[0]["fg"][:1],
                    numbers[:1],
                    times[:1],
                    None if cells is None else cells[:1],
                )
                first.finish()
                companion = None
        for file in files:
            file.finish()


def _targets(output: Path, members: int | None) -> list[Path]:
    if members is None or members == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{i + 1}{output.suffix}") for i in range(members)]


def _keep_input(targets: list[Path], trajectory: str | Path, top: str | Path | None) -> None:
    inputs = {Path(path).resolve() for path in (trajectory, top) if path}
    for target in targets:
        if target.resolve() in inputs:
            raise ConfigError(f"{target}: would replace the input; choose another --output")


def _same_atoms(companion: Path, topology: Topology) -> bool:
    """Whether the file is there. Raises ConfigError if it names other atoms than ``topology``."""
    if not companion.exists():
        return False
    wanted = topology.to_mdtraj()
    try:
        found = load_topology(str(companion))
    except InputError:
        found = None
    if found is None or [*map(_name, found.atoms)] != [*map(_name, wanted.atoms)]:
        raise ConfigError(
            f"{companion}: there is another topology of this name; choose another --output or remove it"
        )
    return True


def _name(atom) -> tuple:
    residue = atom.residue
    return residue.chain.index, residue.resSeq % 10000, residue.name, atom.name  # four PDB columns


def _survey(trajectory: str, top: str | None) -> SystemSurvey:
    """The C-alpha atoms of the trajectory and the molecule that they imply."""
    if not Path(trajectory).exists():
        raise InputError(f"{trajectory}: no such trajectory")
    if top is None and not holds_topology(trajectory):
        raise InputError(
            f"{trajectory}: no atom names are read from this format; give a PDB file of the molecule with --top"
        )
    named = top or trajectory
    atoms = load_topology(named)
    if not any(atom.name == "CA" for atom in atoms.atoms):
        raise InputError(f"{named}: no CA atom; a C-alpha or all-atom trajectory is needed")
    for residue in atoms.residues:
        if standard_residue_name(residue.name) and not any(a.name == "CA" for a in residue.atoms):
            raise InputError(
                f"{named}: residue {residue} in chain {residue.chain.index} has no CA atom; complete "
                "the model or take the residue out of the file"
            )
    survey = survey_system(
        SystemConfig(
            name="trajectory", trajectories=[trajectory], topology=top, selection="name CA"
        )
    )
    breaks = np.flatnonzero(~np.array(survey.topology.bonded))
    chain = survey.topology.chain_index
    for residue in breaks[1:]:
        if chain[residue] == chain[residue - 1]:
            log.warning("%s: chain break before %s", named, survey.topology.label(int(residue)))
    return survey


def _batches(survey: SystemSurvey, device: torch.device) -> Iterator[tuple]:
    """C-alpha positions [F, R, 3], numbers [F], times [F] and cells of a few frames; tells of progress."""
    size = max(1, BATCH_RESIDUES[device.type] // survey.topology.n_residues)
    begun = reported = time.monotonic()
    done = 0
    for positions, numbers, times, cells in survey.read(0, survey.n_frames):
        require_bends(survey.topology, positions, numbers, survey.files[0].path)
        for start in range(0, len(positions), size):
            part = slice(start, start + size)
            yield (
                positions[part],
                numbers[part],
                times[part],
                None if cells is None else cells[part],
            )
            done += len(numbers[part])
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                left = (reported - begun) * (survey.n_frames - done) / done
                log.info("%d of %d frames, about %.0f s left", done, survey.n_frames, left)


def _require_finite(fine: np.ndarray, numbers: np.ndarray, trajectory: str | Path) -> None:
    bad = ~np.isfinite(fine).all(axis=(1, 2))
    if bad.any():
        raise InputError(
            f"{trajectory}: frame {numbers[np.argmax(bad)]}: no finite structure fits its C-alpha atoms"
        )
