"""The commands: parse and call.

What is heavy is imported inside the command that needs it, after the campaign has been read: a
mistake in the campaign is told at once.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap import __version__, console
from hpcbackmap.allocator import keep_freed_memory
from hpcbackmap.config import Campaign, load_campaign
from hpcbackmap.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    cls=console.CommandGroup,
    name="hpcbackmap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Put atoms back into coarse-grained protein ensembles, one resolution at a time. "
    "Begin with `hpcbackmap demo`.",
)

CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN", help="Campaign file, for example campaign.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Campaign keys to change, for example stages.ca-fg.train.max_steps=200.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Result as JSON on standard output; all else on standard error."),
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given)."""
    keep_freed_memory()
    console.run(app, arguments)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hpcbackmap {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More log lines.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0,
) -> None:
    """Settings of every command. The deepspeed launcher adds ``--local_rank``; its variables suffice."""
    console.configure_logging(verbose)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to work in.")] = Path(
        "hpcbackmap-demo"
    ),
) -> None:
    """Run the example campaign (Trp-cage) end to end, about ten minutes on two cores.

    Ingest, train two stages at once, backmap held-out beads under mpirun, judge, report. Interrupted or
    run again, it continues where it stopped.
    """
    from hpcbackmap.demo import run_demo

    run_demo(output)


@app.command()
def ingest(campaign: CampaignFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Read the campaign's trajectories into its frame store.

    In parallel: mpirun -n 4 hpcbackmap ingest campaign.yaml
    """
    resolved = _load(campaign, overrides)
    from hpcbackmap.frames.ingest import ingest
    from hpcbackmap.mpi import get_comm

    console.show(ingest(resolved, get_comm()), as_json)


@app.command()
def train(
    campaign: CampaignFile,
    stage: Annotated[str, typer.Option("--stage", help="Stage to train, for example ca-fg.")],
    overrides: Overrides = None,
    deepspeed_config: Annotated[
        Path | None,
        typer.Option(
            "--deepspeed-config", "--deepspeed_config", help="Your own DeepSpeed JSON, merged in."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train one stage; the same command resumes. Stages need nothing of each other.

    With a launcher: deepspeed --num_accelerators 4 --module hpcbackmap train campaign.yaml --stage ca-fg
    """
    resolved = _load(campaign, overrides)
    from hpcbackmap.training.trainer import train

    console.show(train(resolved, stage, deepspeed_config=deepspeed_config), as_json)


@app.command()
def backmap(
    campaign: Annotated[
        Path,
        typer.Argument(
            metavar="CAMPAIGN|TRAJECTORY", help="Campaign file (.yaml), or a C-alpha trajectory."
        ),
    ],
    overrides: Overrides = None,
    input_store: Annotated[
        str | None,
        typer.Option("--input", help="Store of coarse frames; default: the held-out frames."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Store to write (default: backmapped.zarr); for a trajectory .xtc, .dcd or .pdb.",
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option("--members", min=1, help="Structures to draw per input frame.")
    ] = None,
    mode: Annotated[
        bool, typer.Option("--mode", help="Instead: the one most likely structure per frame.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the draws.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Resolution to write, may be repeated; default: all."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Frames per batch, or auto: measured.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="I/N", help="Only part I of N of the work, from 0, as in a job array."
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            metavar="N,M,…",
            help="Ranks of each stage, coarse to fine; default: every rank runs all stages.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", help="Minutes after which no more work is begun (exit code 75)."
        ),
    ] = None,
    top: Annotated[
        Path | None,
        typer.Option("--top", help="Topology of a trajectory whose format carries none."),
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option("--artifact", help="Trained ca-fg stage for a trajectory; default: shipped."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put atoms into coarse frames with the trained stages; a rerun does only what is missing.

    In parallel: mpirun -n 4 hpcbackmap backmap campaign.yaml --members 10
    No campaign: hpcbackmap backmap ca.xtc --top ca.pdb -o atoms.xtc
    """
    if mode and members:
        raise ConfigError("backmap: give --members or --mode, not both")
    if campaign.suffix not in (".yaml", ".yml"):
        if overrides or input_store or time_limit or keep or batch or part or pipeline:
            raise ConfigError(
                f"{campaign}: KEY=VALUE, --input, --keep, --batch, --part, --pipeline and --time-limit "
                "need a campaign (.yaml), this is taken for a trajectory"
            )
        drawn = None if mode else members or 1
        _backmap_trajectory(campaign, output, top, drawn, seed or 0, artifact, as_json)
        return
    if top or artifact:
        raise ConfigError("backmap: --top and --artifact are for a trajectory, not for a campaign")
    chosen = {
        "backmap.input": input_store and _absolute(input_store),
        "backmap.output": output and _absolute(output),
        "backmap.members": members,
        "backmap.mode": mode or None,
        "backmap.seed": seed,
        "backmap.keep": keep or None,
        "backmap.batch_frames": batch,
    }
    options = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
    resolved = _load(campaign, [*(overrides or []), *options])
    from hpcbackmap.backmapping.driver import backmap
    from hpcbackmap.mpi import get_comm

    seconds = None if time_limit is None else 60 * time_limit
    result = backmap(resolved, get_comm(), seconds, _part(part), _rank_counts(pipeline))
    console.show(result, as_json)


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


def _backmap_trajectory(trajectory, output, top, members, seed, artifact, as_json) -> None:
    if output is None:
        raise ConfigError(f"{trajectory}: say where to write: --output FILE.xtc, .dcd or .pdb")
    from hpcbackmap.backmapping.shipped import backmap_trajectory

    result = backmap_trajectory(trajectory, output, top, members, seed, artifact)
    console.show(result, as_json)


@app.command()
def evaluate(
    campaign: Annotated[
        Path | None,
        typer.Argument(metavar="[CAMPAIGN]", help="Campaign whose backmapped frames are judged."),
    ] = None,
    overrides: Overrides = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Instead: trajectory with the true atoms.")
    ] = None,
    generated: Annotated[
        Path | None, typer.Option("--generated", help="Trajectory to judge against --truth.")
    ] = None,
    truth_top: Annotated[
        Path | None, typer.Option("--truth-top", help="Topology, where --truth carries none.")
    ] = None,
    generated_top: Annotated[
        Path | None,
        typer.Option("--generated-top", help="Topology, where --generated carries none."),
    ] = None,
    elbo: Annotated[
        bool,
        typer.Option("--elbo", help="Instead: ELBO of every stage and of the ladder, held out."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Judge at most so many frames.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare backmapped structures with the truth and with trivial baselines.

    For a campaign: hpcbackmap evaluate campaign.yaml
    For two files:  hpcbackmap evaluate --truth md.xtc --truth-top md.pdb --generated made.pdb
    Likelihoods:    hpcbackmap evaluate campaign.yaml --elbo --frames 200
    """
    alone = campaign is not None and truth is None and generated is None
    if (elbo or frames) and not alone:
        raise ConfigError("evaluate: --elbo and --frames need a campaign, and no files")
    if alone:
        cap = [f"evaluate.max_frames={frames}"] if frames else []
        resolved = _load(campaign, [*(overrides or []), *cap])
    if elbo:
        _evaluate_elbo(resolved, as_json)
        return
    from hpcbackmap.evaluation import evaluate

    if alone:
        from hpcbackmap.mpi import get_comm

        record = evaluate.evaluate_campaign(resolved, get_comm())
    elif campaign is None and truth is not None and generated is not None:
        record = evaluate.evaluate_files(truth, generated, truth_top, generated_top)
    else:
        raise ConfigError("evaluate: give a campaign, or both --truth and --generated")
    if as_json:
        console.show(record, as_json)
    else:
        console.show_lines(evaluate.five_figures(record))


def _evaluate_elbo(campaign: Campaign, as_json: bool) -> None:
    from hpcbackmap.evaluation.elbo_table import elbo_lines
    from hpcbackmap.evaluation.likelihood import evaluate_elbo
    from hpcbackmap.mpi import get_comm

    record = evaluate_elbo(campaign, get_comm())
    if as_json:
        console.show(record, as_json)
    else:
        console.show_lines(elbo_lines(record))


@app.command()
def report(
    campaign: CampaignFile,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file; default: report.html of the campaign."),
    ] = None,
) -> None:
    """Write the evaluation as one self-contained HTML page with pictures."""
    resolved = _load(campaign, overrides)
    from hpcbackmap.evaluation.report import write_report

    typer.echo(write_report(resolved, output or resolved.path("report.html")))


@app.command()
def export(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="Frame store, for example frames.zarr.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .xtc, .dcd or .pdb; with {frame} in its name, a file per frame.",
        ),
    ],
    resolution: Annotated[
        str, typer.Option("--resolution", help="fg, ca or another of the store.")
    ] = "fg",
    system: Annotated[
        str | None, typer.Option("--system", help="System, where the store holds several.")
    ] = None,
    start: Annotated[int, typer.Option("--start", min=0, help="First frame.")] = 0,
    stop: Annotated[int | None, typer.Option("--stop", help="Frame to stop before.")] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Every so many frames.")] = 1,
) -> None:
    """Write frames of a store as a trajectory that other programs read.

    For example: hpcbackmap export backmapped.zarr -o members.xtc
    In parallel: mpirun -n 4 hpcbackmap export backmapped.zarr -o members.xtc
    """
    from hpcbackmap.frames.export import export
    from hpcbackmap.frames.store import open_store
    from hpcbackmap.mpi import get_comm

    frames = export(
        open_store(store),
        resolution,
        output,
        system=system,
        start=start,
        stop=stop,
        stride=stride,
        comm=get_comm(),
    )
    console.show_lines([f"{frames} frames in {output}"])


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="CAMPAIGN|STORE|ARTIFACT|shipped",
            help="What to look at; shipped: the stage that comes with the package.",
        ),
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="Instead: memory that training this stage of it takes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a store or an artifact, or what a campaign would run and what is done.

    With --stage: bytes on every rank for each ZeRO stage and number of ranks, and whether ZeRO helps.
    """
    from hpcbackmap import inspection

    if path.name == "shipped" and not path.exists():
        from hpcbackmap.backmapping.shipped import shipped_artifact

        path = shipped_artifact()
    if stage is not None:
        if path.is_dir():
            raise ConfigError(f"inspect: --stage is for a campaign file, {path} is a folder")
        _inspect_memory(_load(path, overrides), stage, as_json)
    elif path.is_dir():
        console.show(inspection.describe_folder(path), as_json)
    else:
        console.show(inspection.describe_campaign(_load(path, overrides)), as_json)


def _inspect_memory(campaign: Campaign, stage: str, as_json: bool) -> None:
    from hpcbackmap.training.memory import memory_lines, stage_memory

    record = stage_memory(campaign, stage)
    if as_json:
        console.show(record, as_json)
    else:
        console.show_lines(memory_lines(record))


@app.command()
def submit(
    campaign: CampaignFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts; submit nothing.")
    ] = False,
    het: Annotated[
        bool, typer.Option("--het", help="All stages in one heterogeneous job.")
    ] = False,
) -> None:
    """Submit what is missing to Slurm: ingest, all stages at once on their own nodes, backmap, evaluate.

    Nodes: `node_groups` and `stages.<stage>.node_group` of the campaign. What is in the queue stays there.
    """
    resolved = _load(campaign, overrides)
    from hpcbackmap.cluster import submission

    send = submission.dry_run if dry_run else submission.submit_campaign
    for line in send(resolved, campaign, overrides or [], het):
        typer.echo(line)


@app.command()
def status(campaign: CampaignFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show how every step of a campaign stands; from its files alone where there is no Slurm."""
    resolved = _load(campaign, overrides)
    from hpcbackmap.cluster.status import as_record, campaign_status, table

    rows = campaign_status(resolved)
    if as_json:
        console.show(as_record(rows), as_json)
    else:
        console.show_lines(table(rows))


@app.command()
def cancel(campaign: CampaignFile, overrides: Overrides = None) -> None:
    """Take a campaign's jobs out of the queue; running trainings write a checkpoint first."""
    resolved = _load(campaign, overrides)
    from hpcbackmap.cluster.submission import cancel_campaign

    for line in cancel_campaign(resolved):
        typer.echo(line)


@app.command()
def verify(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Frame store, for example backmapped.zarr.")
    ],
    as_json: Json = False,
) -> None:
    """Read every shard of a store against its checksums, and count.

    In parallel: mpirun -n 4 hpcbackmap verify backmapped.zarr
    """
    from hpcbackmap.frames.verify import verify_store
    from hpcbackmap.mpi import get_comm

    console.show(verify_store(store, get_comm()), as_json)


def _load(path: Path, overrides: list[str] | None) -> Campaign:
    return load_campaign(path, overrides or [])


def _absolute(location: str) -> str:
    """A path of the caller, who does not know where the campaign's folder is; URLs stay."""
    return location if "://" in location else str(Path(location).resolve())
