"""The command `backmap`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcbackmap.cli.options import (
    FILES,
    BeadCenter,
    Json,
    Quiet,
    Segments,
    Verbose,
    absolute,
    load,
)
from hpcbackmap.finishing.options import require_openmm
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import ConfigError

if TYPE_CHECKING:
    from hpcbackmap.backmapping.request import Request

__all__ = ["backmap"]

CAMPAIGN = "Of a campaign"
FINISH = "Finish"


def backmap(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE… | CAMPAIGN [KEY=VALUE…]",
            help="Coarse-grained trajectories of one molecule, in order; or a campaign (.yaml) and keys of it "
            "to change.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Of files: .xtc, .dcd, .pdb, .cif, .gro or .zarr; of a campaign: a store.",
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option("--members", min=1, max=10_000, help="Structures to draw per input frame."),
    ] = None,
    mode: Annotated[
        bool, typer.Option("--mode", help="Instead: the one most likely structure per frame.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the draws.")
    ] = None,
    coherence: Annotated[
        int | None,
        typer.Option(
            "--coherence",
            min=1,
            max=1000,
            metavar="FRAMES",
            help="Frames over which a member's noise stays alike, so that a trajectory does not flicker; "
            "default: 1, each frame on its own.",
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option("--frames", metavar="START:STOP:STRIDE", help="Frames of the input."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="I/N", help="Only part I of N of the work, from 0, as in a job array."
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", help="Minutes after which no more work is begun (exit code 75)."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    top: Annotated[
        str | None,
        typer.Option(
            "--top",
            help="File that names the particles, where the trajectory does not.",
            rich_help_panel=FILES,
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select", help="Particles to read, as mdtraj selects them.", rich_help_panel=FILES
        ),
    ] = None,
    chains: Annotated[
        str | None,
        typer.Option(
            "--chains", metavar="A,B,…", help="Chains to read; default: all.", rich_help_panel=FILES
        ),
    ] = None,
    representation: Annotated[
        str,
        typer.Option(
            "--representation",
            help="What the particles are: ca, com, bb, martini3, backbone, … ; ucg: beads of several residues; "
            "auto: told from them.",
            rich_help_panel=FILES,
        ),
    ] = "auto",
    sequence: Annotated[
        str | None,
        typer.Option(
            "--sequence",
            metavar="FASTA",
            help="File or letters, where residue names say nothing; of beads of several residues always.",
            rich_help_panel=FILES,
        ),
    ] = None,
    segments: Segments = None,
    beads: Annotated[
        str | None,
        typer.Option(
            "--beads",
            metavar="FILE",
            help="Instead: YAML with a list `bead`, the bead of each residue from 0.",
            rich_help_panel=FILES,
        ),
    ] = None,
    bead_center: BeadCenter = "ca",
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="Of beads of several residues: a structure of the protein, which is carried onto them.",
        ),
    ] = None,
    secondary_structure: Annotated[
        str | None,
        typer.Option(
            "--secondary-structure",
            metavar="LETTERS|FILE",
            help="Of beads of several residues: H, E, C or ? for each residue, chains apart by /.",
        ),
    ] = None,
    molecule: Annotated[
        int | None,
        typer.Option(
            "--molecule",
            min=1,
            metavar="N",
            help="Every N residues make a molecule, where nothing in the file tells.",
            rich_help_panel=FILES,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            "--unit",
            metavar="nm|A|NM",
            help="Unit of length of the files, where it is not that of their format; or how many nm.",
            rich_help_panel=FILES,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse rather than leave particles out.", rich_help_panel=FILES
        ),
    ] = False,
    keep_others: Annotated[
        bool,
        typer.Option(
            "--keep-others",
            help="Pass nucleic acids, ligands, lipids, ions and water through as they are.",
            rich_help_panel=FILES,
        ),
    ] = False,
    on_bad_frame: Annotated[
        str,
        typer.Option(
            "--on-bad-frame",
            metavar="stop|skip|repair",
            help="What to do with a frame whose trace is broken: skip names and counts it.",
            rich_help_panel=FILES,
        ),
    ] = "skip",
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stages",
            "--artifact",
            help="Trained ca-fg stage; default: shipped.",
            rich_help_panel=FILES,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an output that exists.", rich_help_panel=FILES),
    ] = False,
    hydrogens: Annotated[
        bool, typer.Option("--hydrogens", help="Add hydrogens.", rich_help_panel=FINISH)
    ] = False,
    relax: Annotated[
        bool,
        typer.Option(
            "--relax",
            help="Minimise with restraints (needs OpenMM, the extra md).",
            rich_help_panel=FINISH,
        ),
    ] = False,
    ph: Annotated[
        float | None,
        typer.Option("--ph", help="Of the hydrogens; default: 7.", rich_help_panel=FINISH),
    ] = None,
    disulphides: Annotated[
        str | None,
        typer.Option(
            "--disulphides",
            metavar="A:5-A:55,…|auto|none",
            help="Of files: bonded cysteines; auto: told from distances; default: those the file names.",
            rich_help_panel=FINISH,
        ),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--names",
            metavar="pdb|amber|charmm|gromacs",
            help="Of files: names of residues and atoms, with --hydrogens.",
            rich_help_panel=FINISH,
        ),
    ] = "pdb",
    input_store: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Store of coarse frames; default: the held-out frames.",
            rich_help_panel=CAMPAIGN,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            help="Resolution to write, may be repeated; default: all.",
            rich_help_panel=CAMPAIGN,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", help="Frames per batch, or auto: measured.", rich_help_panel=CAMPAIGN
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            metavar="N,M,…",
            help="Ranks of each stage, coarse to fine; default: every rank runs all stages.",
            rich_help_panel=CAMPAIGN,
        ),
    ] = None,
    progress: Annotated[
        float | None,
        typer.Option("--progress", min=0, help="Seconds between lines of progress; 0: none."),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Put atoms into coarse frames; a rerun does only what is missing, with any number of ranks.

    Files: hpcbackmap backmap run.xtc --top model.pdb -o atoms.xtc --members 5
    Ultra-coarse: hpcbackmap backmap beads.xtc --top beads.pdb --sequence protein.fasta -o atoms.xtc
    In parallel: mpirun -n 4 hpcbackmap backmap run.xtc --top model.pdb -o atoms.xtc
    A campaign: mpirun -n 4 hpcbackmap backmap campaign.yaml --members 10
    """
    _check_choices(mode, members, coherence, device)
    if verbose or quiet:
        console.configure_logging(verbose, quiet)
    if time_limit is not None and not time_limit >= 0:
        raise ConfigError(f"--time-limit {time_limit}: give minutes, 0 or more")
    minutes = None if time_limit is None else 60 * time_limit
    first, *rest = inputs
    of_campaign = {"--input": input_store, "--keep": keep, "--batch": batch, "--pipeline": pipeline}
    of_files = {
        "--top": top, "--select": select, "--chains": chains, "--stages": stages, "--force": force or None,
        "--sequence": sequence, "--segments": segments, "--beads": beads, "--strict": strict or None,
        "--keep-others": keep_others or None,
        "--bead-center": None if bead_center == "ca" else bead_center, "--molecule": molecule, "--unit": unit,
        "--representation": None if representation == "auto" else representation,
        "--names": None if names == "pdb" else names,
        "--disulphides": disulphides, "--on-bad-frame": None if on_bad_frame == "skip" else on_bad_frame,
    }  # fmt: skip
    if not first.endswith((".yaml", ".yml")):
        given = [name for name, value in of_campaign.items() if value]
        given += [word for word in rest if "=" in word and not Path(word).exists()]
        if given:
            raise ConfigError(f"{first}: {', '.join(given)}: only for a campaign (.yaml)")
        if ph is not None and not hydrogens and not relax:
            raise ConfigError("--ph: says which hydrogens there are; add --hydrogens")
        _set_progress(progress)
        if output is None:
            raise ConfigError(
                f"{first}: say where to write: --output FILE.xtc, .dcd, .pdb, .cif, .gro or .zarr"
            )
        from hpcbackmap.backmapping.request import Request

        request = Request(
            output=Path(output), top=top, members=members or 1, mode=mode, seed=seed or 0, frames=frames,
            chains=tuple(filter(None, (chains or "").split(","))), select=select, stages=tuple(stages or ()),
            device=device, on_bad_frame=on_bad_frame, force=force, representation=representation,
            sequence=sequence, strict=strict, keep_others=keep_others, molecule=molecule, unit=unit,
            segments=segments, beads=beads, bead_center=bead_center, hydrogens=hydrogens, relax=relax,
            ph=7.0 if ph is None else ph,
            names=names, disulphides=disulphides, coherence=coherence or 1, reference=reference,
            secondary_structure=secondary_structure,
        )  # fmt: skip
        result = _backmap_files(inputs, request, minutes, _part(part))
        _tell(result, quiet, as_json)
        return
    given = [name for name, value in of_files.items() if value is not None]
    if given:
        raise ConfigError(f"{first}: {', '.join(given)}: only for files, not for a campaign")
    chosen = {
        "backmap.input": input_store and absolute(input_store),
        "backmap.output": output and absolute(output),
        "backmap.members": members,
        "backmap.mode": mode or None,
        "backmap.seed": seed,
        "backmap.coherence": coherence,
        "backmap.hydrogens": hydrogens or None,
        "backmap.relax": relax or None,
        "backmap.ph": ph,
        "backmap.reference": reference and absolute(reference),
        "backmap.secondary_structure": secondary_structure,
        "backmap.keep": keep or None,
        "backmap.frames": frames,
        "backmap.batch_frames": batch,
    }
    options = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
    resolved = load(Path(first), [*rest, *options])
    require_openmm(resolved.backmap.relax, "--relax" if relax else f"{first}: backmap.relax")
    from hpcbackmap.backmapping.driver import backmap
    from hpcbackmap.runtime.mpi import get_comm

    _set_progress(progress)
    result = backmap(resolved, get_comm(), minutes, _part(part), _rank_counts(pipeline), device)
    _tell(result, quiet, as_json)


def _tell(result: dict[str, Any], quiet: bool, as_json: bool) -> None:
    """The result; then the exit code says whether all structures were relaxed, where that was asked for."""
    from hpcbackmap.backmapping.relaxation import require_relaxed

    if not quiet or as_json:
        console.show(result, as_json)
    require_relaxed(result)


def _check_choices(mode: bool, members: int | None, coherence: int | None, device: str) -> None:
    if mode and members:
        raise ConfigError("backmap: give --members or --mode, not both")
    if mode and coherence:
        raise ConfigError(
            "backmap: --coherence is of members, --mode has no noise; give one of them"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: give auto, cpu or cuda")


def _backmap_files(
    inputs: list[str], request: "Request", time_limit: float | None, part: tuple[int, int]
) -> dict[str, Any]:
    from hpcbackmap.backmapping.request import check_request

    check_request(request, inputs)  # before what takes a second to load
    from hpcbackmap.backmapping.files import backmap_files
    from hpcbackmap.runtime.mpi import get_comm

    return backmap_files(inputs, request, get_comm(), time_limit, part)


def _set_progress(seconds: float | None) -> None:
    if seconds is not None:
        from hpcbackmap.runtime.progress import set_pause

        set_pause(seconds)


def _part(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(
            f"backmap: --part {text}: write I/N with I from 0 to N - 1, for example 0/16"
        )
    return int(index), int(count)


def _rank_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = text.split(",")
    if not all(word.isdigit() for word in words):
        raise ConfigError(f"backmap: --pipeline {text}: write numbers of ranks, for example 1,3")
    return [int(word) for word in words]
