"""The command `init`: a campaign file for files of one protein system, that runs as it stands."""

import re
import shutil
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
import yaml

from hpcbackmap.cli.options import BeadCenter, Segments
from hpcbackmap.cluster.scripts import batch_scripts
from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.config.load import load_campaign
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError
from hpcbackmap.runtime.files import write_whole

__all__ = ["campaign_text", "init"]

RESIDUES_PER_BEAD = 10
FEWEST_BEADS, MOST_BEADS = 5, 100
FEWEST_OF_PEPTIDES = 3
"""Where a bead of two residues leaves no room for more; fewer have no orientation."""
SELECTION = """\
    # selection: "chainid 0"      # mdtraj language; default: all protein"""
FRAMES_TO_LEARN = 30
"""With fewer frames nothing is trained: the shipped stage does all."""


def init(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILES]...",
            help="Trajectories of one system, in order: all atoms, C-alpha, or with --sequence beads of "
            "several residues.",
        ),
    ] = None,
    top: Annotated[
        Path | None, typer.Option("--top", help="Topology, where the files carry none.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Campaign file to write.")] = Path(
        "campaign.yaml"
    ),
    beads: Annotated[
        int | None,
        typer.Option(
            "--beads", min=3, help="Beads of the coarsest level; default: ten residues each."
        ),
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(
            "--sequence",
            metavar="FASTA",
            help="File or letters: the files hold beads of several residues of it.",
        ),
    ] = None,
    segments: Segments = None,
    bead_center: BeadCenter = "ca",
    site: Annotated[
        bool,
        typer.Option("--site", help="Write site.sh, for Slurm jobs, beside the campaign file."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a campaign that runs as it stands, every key explained.

    For example: hpcbackmap init md.xtc --top md.pdb && hpcbackmap ingest campaign.yaml
    Beads of several residues: hpcbackmap init beads.xtc --top beads.pdb --sequence protein.fasta
    On a cluster: hpcbackmap init md.xtc --top md.pdb --site, then edit site.sh
    """
    if not files and not site:
        raise ConfigError("init: name the trajectory files of your system, or --site")
    targets = [output] if files else []
    targets += [output.with_name("site.sh")] if site else []
    there = [str(path) for path in targets if path.exists()]
    if there and not force:
        raise OutputError(f"{', '.join(there)}: there already; --force replaces")
    if files:
        if sequence is None:
            if segments is not None or bead_center != "ca":
                raise ConfigError(
                    "init: --segments and --bead-center are of beads; give --sequence"
                )
            system = _look(files, top, beads)
        elif beads is not None:
            raise ConfigError(
                "init: --beads needs a stage that learns them from atoms, not --sequence"
            )
        else:
            system = _look_at_beads(files, top, sequence, segments, bead_center)
        text = _campaign_text(system, files, top, output)
        write_whole(output, text)
        load_campaign(output)
        typer.echo(f"{output}\n\nnext:")
        for line in next_steps(output, text):
            typer.echo(f"  {line}")
    if site:
        shutil.copyfile(batch_scripts() / "site.sh", output.with_name("site.sh"))
        typer.echo(f"{output.with_name('site.sh')}: edit it; jobs of campaigns beside it source it")


def campaign_text(files: list[str], top: Path | None, output: Path, beads: int | None) -> str:
    """The campaign file for one system. Looks at the files; raises InputError or ConfigError."""
    return _campaign_text(_look(files, top, beads), files, top, output)


def _campaign_text(system: "_System", files: list[str], top: Path | None, output: Path) -> str:
    folder = output.resolve().parent
    places = [_place(Path(file), folder) for file in files]
    topology = f"\n    topology: {_text(_place(top, folder))}" if top else ""
    return TEMPLATE.format(
        name=_text(system.name),
        summary=system.summary,
        ladder=", ".join(_text(item) for item in system.ladder),
        ladder_words=system.ladder_words,
        topology=topology,
        particles=system.particles,
        trajectories="".join(f"\n      - {_text(place)}" for place in places),
        split=system.split,
        stages=system.stages,
        input=system.input,
    )


def next_steps(output: Path, text: str) -> list[str]:
    """The commands that run the campaign, in order."""
    stages = yaml.safe_load(text)["stages"]
    trained = [name for name, stage in stages.items() if "artifact" not in stage]
    judged = "input: work/frames.zarr" not in text
    return [
        f"hpcbackmap ingest {output}",
        *(f"hpcbackmap train {output} --stage {name}" for name in trained),
        f"hpcbackmap backmap {output}",
        *((f"hpcbackmap evaluate {output}", f"hpcbackmap report {output}") if judged else ()),
    ]


class _System(NamedTuple):
    """What the files hold, in the words of the campaign file."""

    name: str
    summary: str
    ladder: list[str]
    ladder_words: str
    split: str
    stages: str
    input: str
    particles: str = SELECTION


def _look(files: list[str], top: Path | None, beads: int | None) -> _System:
    from hpcbackmap.ingest.survey import survey_system

    name = _name(files)
    config = SystemConfig(name=name, trajectories=files, topology=str(top) if top else None)
    try:
        survey = survey_system(config)
    except InputError as error:
        raise InputError(
            f"{error}; of beads of several residues say the --sequence, files of other beads need no campaign: "
            "hpcbackmap backmap FILES -o OUTPUT"
        ) from None
    residues, frames = survey.topology.n_residues, survey.n_frames
    held = "C-alpha atoms" if survey.resolution == "ca" else "all heavy atoms"
    summary = f"{residues} residues, {frames} frame(s), {held}"
    if survey.resolution == "ca" or frames < FRAMES_TO_LEARN:
        if beads is not None:
            raise ConfigError(f"init: --beads needs a stage that learns them; here are {summary}")
        split = SPLIT_NONE if survey.resolution == "ca" else SPLIT_ALL
        words = "# ca is all that the files hold." if survey.resolution == "ca" else FEW_FRAMES
        source = OWN_INPUT if survey.resolution == "ca" else OTHER_INPUT
        return _System(name, summary, ["fg", "ca"], words, split, SHIPPED_STAGE, source)
    usual = min(MOST_BEADS, max(FEWEST_BEADS, round(residues / RESIDUES_PER_BEAD)))
    count = beads or min(usual, max(FEWEST_OF_PEPTIDES, residues // 2))
    if count > residues // 2:
        raise ConfigError(f"init: --beads {count} for {residues} residues; at most {residues // 2}")
    coarse = f"ucg:{count}"
    words = (
        f"# {coarse} is called ucg{count} in stage names: {count} runs of residues, a bead the mean of its "
        "C-alpha atoms."
    )
    stages = LEARNED_STAGES.format(coarse=f"ucg{count}")
    return _System(name, summary, ["fg", "ca", coarse], words, SPLIT_TIME, stages, OTHER_INPUT)


def _look_at_beads(
    files: list[str], top: Path | None, sequence: str, segments: str | None, bead_center: str
) -> _System:
    """Files of beads of several residues, read and checked as `backmap` reads them."""
    from hpcbackmap.backmapping.opening import open_source
    from hpcbackmap.backmapping.request import Request
    from hpcbackmap.resolution.build import resolution_name, runs_spec
    from hpcbackmap.trajectories.frames import FilesOfFrames

    request = Request(
        top=str(top) if top else None, sequence=sequence, segments=segments, bead_center=bead_center,
        representation="ucg",
    )  # fmt: skip
    system = open_source(files, request).only
    topology, count = system.ladder.topology, len(system.chosen)
    bead_of = system.reading.sites["bead_of"].tolist()
    runs = [bead_of.count(bead) for bead in range(count)]
    coarse = runs_spec(runs, bead_center)
    name = resolution_name(coarse)
    letters = [RESIDUES[residue].letter for residue in topology.sequence]
    chains = [
        "".join(
            letter for letter, of in zip(letters, topology.chain_index, strict=True) if of == chain
        )
        for chain in range(len(topology.chain_ids))
    ]
    particles = f"    resolution: {name}\n    sequence: [{', '.join(map(_text, chains))}]"
    chosen, reader = system.chosen.tolist(), system.reader
    if not isinstance(reader, FilesOfFrames) or chosen != list(range(reader.n_atoms)):
        particles += f"\n    beads: {chosen}"
    summary = f"{topology.n_residues} residues, {system.n_frames} frame(s), {count} beads"
    return _System(
        _name(files), summary, ["fg", "ca", coarse], BEAD_WORDS.format(name=name), SPLIT_NONE,
        SHIPPED_TRACE.format(name=name) + SHIPPED_STAGE, OWN_INPUT, particles,
    )  # fmt: skip


def _name(files: list[str]) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(files[0]).name.split(".")[0]) or "protein"


def _place(file: Path, folder: Path) -> str:
    """Path of a file from the campaign's folder if it is below, else from the root."""
    file = file.resolve()
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _text(value: str) -> str:
    """A YAML scalar, quoted where it has to be."""
    found: str = yaml.safe_dump(value, default_style='"', width=10**6, allow_unicode=True).strip()
    return found


SPLIT_TIME = """by: time                        # the last frames; or source (whole files), system
  validation: 0.1                 # share that chooses the weights
  test: 0.2                       # share that judges them"""
SPLIT_ALL = """by: time
  validation: 0.0
  test: 0.99                      # nothing is trained, so nearly all is judged"""
SPLIT_NONE = """by: time
  validation: 0.0
  test: 0.0"""
OWN_INPUT = "input: work/frames.zarr        # all frames of the files"
OTHER_INPUT = (
    "# input: coarse.zarr            # a store of coarse frames; default: the held-out frames"
)
FEW_FRAMES = (
    f"# Fewer than {FRAMES_TO_LEARN} frames: too few to learn from, so the shipped stage does all."
)
SHIPPED_STAGE = """  ca-fg:
    model: {kind: genzprot}
    artifact: shipped             # trained on protein families of the PDB; no training"""
BEAD_WORDS = (
    "# {name} are the beads of the files: how many residues each has, chains one after the other."
)
SHIPPED_TRACE = """  {name}-ca:
    model: {{kind: trace}}
    artifact: shipped             # beads of 2 to 25 residues to C-alpha atoms, any protein; no training
"""
LEARNED_STAGES = """  ca-fg:
    model:
      kind: genzprot              # C-alpha to heavy atoms by internal coordinates
      per_system: true            # learn this protein's rotamers by heart
    # artifact: shipped           # instead of all below: the shipped stage as it is, no training
    train: &train
      init_from: shipped          # start from the shipped weights
      max_minutes: 5              # a laptop's patience; leave it out for a real training
      max_steps: 20000
      batch_size: 16              # frames of an optimiser step, over all ranks together
      learning_rate: 1.0e-3
      warmup_steps: 50
      validate_every: 100
      checkpoint_every: 100       # a stopped training goes on from here
      patience: 10                # stop after so many validations without progress
      # zero_stage: 1             # DeepSpeed ZeRO 0 to 3
      # precision: bf16           # on GPUs; default fp32
  {coarse}-ca:
    model:
      kind: cgvae                 # beads to C-alpha of this protein
    train: {{<<: *train, init_from: null, batch_size: 32}}"""
TEMPLATE = """\
# A campaign of hpcbackmap: {summary}.
# Any key can be changed on the command line:   hpcbackmap train campaign.yaml --stage ca-fg seed=1
# All keys: docs/reference/config.md; what it would run: hpcbackmap inspect campaign.yaml

name: {name}

# Everything that this campaign writes; paths are relative to this file.
workdir: work

# Resolutions, fine to coarse. fg = heavy atoms, ca = C-alpha atoms.
{ladder_words}
ladder: [{ladder}]

systems:
  - name: {name}{topology}
    trajectories:{trajectories}
{particles}
    # stride: 2                   # every second frame

store:
  quantise: true                  # 0.001 nm, all that an XTC file holds

# Which frames train, validate and test: never random ones, neighbours in time are nearly copies.
split:
  {split}

# One stage for each rung; they train alone, in any order or at the same time.
stages:
{stages}

backmap:
  members: 3                      # structures per input frame
  seed: 0                         # same seed, same structures, on any number of ranks
  # mode: true                    # one most likely structure instead of members
  {input}

evaluate:
  bootstrap: 200                  # resamplings behind every interval
"""
