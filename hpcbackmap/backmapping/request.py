"""What a user asks of `backmap FILE`, and whether it can be done, looked at before anything heavy is loaded."""

import re
from dataclasses import dataclass
from pathlib import Path

from hpcbackmap.finishing.options import (
    PH,
    require_disulphides,
    require_names,
    require_openmm,
    require_ph,
)
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError
from hpcbackmap.runtime.parsing import not_printable
from hpcbackmap.trajectories.companion import topology_beside

__all__ = ["STORE", "Request", "Targets", "check_request"]

WRITTEN = (".xtc", ".dcd", ".pdb", ".cif", ".gro")
STORE = ".zarr"
MOST_COHERENT = 1000
BAD_FRAMES = ("stop", "skip", "repair")
FRAMES = re.compile(r"-?\d*:-?\d*(:[1-9]\d*)?")


@dataclass(frozen=True)
class Request:
    """members: structures of each frame; with ``mode`` the one most likely instead. frames:
    ``START:STOP:STRIDE``. select: mdtraj selection of the particles. chains: letters. stages: artifacts
    instead of the shipped ones. representation: what the particles are; ``auto`` is told from them.
    sequence: FASTA file or letters, where names say nothing. strict: refuse rather than leave particles
    out. keep_others: pass through what is no protein. molecule: residues of each molecule, where nothing
    in the file tells. unit: of length, where it is not that of the format. segments: of beads of several
    residues, how many each, ``8,12,10`` or one number for all. beads: file that maps residues to them.
    bead_center: what a bead is (`resolution.build.DEFINITIONS`). hydrogens: add them, as they are at
    ``ph``. relax: minimise with restraints (OpenMM). names: of residues and atoms
    (`finishing.naming.NAMES`). coherence: frames over which the noise of a member stays alike.
    disulphides: ``A:5-A:55,…``, ``auto`` or ``none``, instead of those of the file. reference: file of a
    structure of the protein, for beads of several residues. secondary_structure: letters, or a file of them,
    for such beads. output: file, or folder that ends in
    .zarr; None keeps all in memory.
    """

    output: Path | None = None
    top: str | None = None
    members: int = 1
    mode: bool = False
    seed: int = 0
    frames: str | None = None
    chains: tuple[str, ...] = ()
    select: str | None = None
    stages: tuple[str, ...] = ()
    device: str = "auto"
    on_bad_frame: str = "skip"
    force: bool = False
    representation: str = "auto"
    sequence: str | None = None
    strict: bool = False
    keep_others: bool = False
    molecule: int | None = None
    unit: str | None = None
    segments: str | None = None
    beads: str | None = None
    bead_center: str = "ca"
    hydrogens: bool = False
    relax: bool = False
    ph: float = PH
    names: str = "pdb"
    disulphides: str | None = None
    coherence: int = 1
    reference: str | None = None
    secondary_structure: str | None = None

    @property
    def targets(self) -> "Targets":
        if self.output is None:
            raise ValueError("what stays in memory has no files")
        return Targets(self.output, 1 if self.mode else self.members)


@dataclass(frozen=True)
class Targets:
    """What a run leaves behind."""

    output: Path
    members: int

    @property
    def files(self) -> list[Path]:
        """One per member; a store holds all of them."""
        output = self.output
        if self.members == 1 or output.suffix == STORE:
            return [output]
        return [
            output.with_name(f"{output.stem}_{k + 1}{output.suffix}") for k in range(self.members)
        ]

    @property
    def topology(self) -> Path | None:
        """Written beside formats that name no atoms."""
        return topology_beside(self.output)

    @property
    def record(self) -> Path:
        """Counts, options and versions of the run, as JSON."""
        return self.output.with_name(f"{self.output.name}.json")

    @property
    def scratch(self) -> Path:
        """Finished shards until all are there."""
        return self.output.with_name(f".{self.output.name}.hpcbackmap")


def check_request(request: Request, inputs: list[str]) -> None:
    """Raises ConfigError, InputError or OutputError for what cannot be done whatever the files hold."""
    if request.frames is not None and not FRAMES.fullmatch(request.frames):
        raise ConfigError(
            f"--frames {request.frames}: write START:STOP:STRIDE, any of them empty, for example 100:200:5"
        )
    if request.on_bad_frame not in BAD_FRAMES:
        raise ConfigError(f"--on-bad-frame {request.on_bad_frame}: give {', '.join(BAD_FRAMES)}")
    if len(request.stages) > 1:
        raise ConfigError("--stages: give one ca-fg stage")
    require_ph(request.ph, "--ph")
    require_names(request.names, request.hydrogens, request.output)
    require_disulphides(request.disulphides)
    require_openmm(request.relax, "--relax")
    if request.members < 1:
        raise ConfigError(f"--members {request.members}: one at least")
    if not 1 <= request.coherence <= MOST_COHERENT:
        raise ConfigError(f"--coherence {request.coherence}: give 1 to {MOST_COHERENT} frames")
    if request.mode and request.coherence > 1:
        raise ConfigError("--coherence: of members; one answer has no noise")
    for path in [*inputs, *filter(None, [request.top, request.beads, request.reference])]:
        if not Path(path).exists():
            raise InputError(f"{path}: no such file")
    if request.output is not None:
        _check_output(request, request.output, inputs)


def _check_suffix(request: Request, output: Path) -> None:
    if output.suffix not in (*WRITTEN, STORE):
        raise ConfigError(
            f"{output}: can write {', '.join((*WRITTEN, STORE))}, not {output.suffix or 'no suffix'}"
        )
    if request.keep_others and output.suffix == STORE:
        raise ConfigError(
            f"{output}: --keep-others: a store holds the protein alone; write {', '.join(WRITTEN)}"
        )


def _check_output(request: Request, output: Path, inputs: list[str]) -> None:
    character = not_printable(str(output))
    if character:
        raise ConfigError(f"--output {str(output)!r}: {character} has no place in a file name")
    try:
        output.resolve(strict=False)
        output.exists()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{output}: no place to write to: {error}") from None
    targets = request.targets
    _check_suffix(request, output)
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; create it first")
    given = {
        Path(path).resolve() for path in [*inputs, *filter(None, [request.top, request.reference])]
    }
    for target in [*targets.files, *filter(None, [targets.topology])]:
        if target.resolve() in given:
            raise ConfigError(f"{target}: would replace the input; choose another --output")
    if request.force or targets.scratch.exists():  # a run that goes on replaces what it has written
        return
    for target in targets.files:
        if target.exists():
            raise OutputError(
                f"{target}: is there already; choose another --output, or --force to replace it"
            )
