"""The example campaign, end to end: every step is the command that a user would type."""

import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import InputError, OutputError
from hpcbackmap.runtime.files import write_whole
from hpcbackmap.runtime.launcher import free_port
from hpcbackmap.runtime.subprocesses import run_together

if TYPE_CHECKING:
    from hpcbackmap.cluster.steps import Step

__all__ = ["demo", "run_demo"]

EXAMPLE = "trpcage"
EXAMPLE_FILES = ("README.md", "campaign.yaml", "trpcage_top.pdb", "trpcage.xtc")
RANKS = 2
SHOWN_FRAMES = 3
TITLES = {
    "ingest": "Ingest the ensemble into a frame store",
    "train": "Train the stages at the same time, each under a DeepSpeed launcher of its own",
    "backmap": "Put atoms into held-out beads",
    "evaluate": "Judge the structures against the truth and trivial baselines",
    "report": "Write the report",
    "export": "Export a few structures to look at",
}


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to work in.")] = Path(
        "hpcbackmap-demo"
    ),
) -> None:
    """Run the example campaign (Trp-cage) end to end, a few minutes on two cores.

    Ingest, train two stages at once, backmap held-out beads under mpirun, judge, report. Interrupted or
    run again, it continues where it stopped.
    """
    run_demo(output)


def run_demo(output: Path) -> None:
    """Run what is missing of the example campaign in folder ``output``, then say where things are.

    Raises InputError if the example is not installed, OutputError for an unusable folder and
    IncompleteError for a step that failed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    begun = time.monotonic()
    campaign_file = _prepare(output)
    campaign = load_campaign(campaign_file)
    structures = output / "structures"
    from hpcbackmap.cluster.steps import campaign_steps

    missing = [step.name for step in campaign_steps(campaign) if not step.done]
    if not missing and structures.is_dir():
        typer.echo("nothing to do: the demo is complete")
    else:
        _run_missing(campaign, campaign_file, output / "logs", structures)
        typer.echo(f"\ndone in {_duration(time.monotonic() - begun)}")
    _show_results(campaign, structures)


def _run_missing(campaign: Campaign, campaign_file: Path, logs: Path, structures: Path) -> None:
    from hpcbackmap.cluster.steps import campaign_steps

    for number, (kind, title) in enumerate(TITLES.items(), start=1):
        begun = time.monotonic()
        typer.secho(f"[{number}/{len(TITLES)}] {title}", bold=True)
        if kind == "export":
            _export(campaign, structures)
        else:
            steps = [step for step in campaign_steps(campaign) if step.arguments[0] == kind]
            todo = [step for step in steps if not step.done]
            if not todo:
                typer.echo("      done before")
                continue
            run_together(
                {step.name.split()[-1]: _command(step, campaign_file) for step in todo},
                logs,
                _environment(len(todo) if kind == "train" else RANKS),
            )
        typer.echo(f"      took {_duration(time.monotonic() - begun)}")


def _prepare(output: Path) -> Path:
    """Copy the example into ``output`` unless it is there; returns the campaign file."""
    package = Path(__file__).parents[1]
    places = [package / "examples" / EXAMPLE, package.parent / "examples" / EXAMPLE]
    example = next((place for place in places if (place / "campaign.yaml").exists()), None)
    if example is None:
        raise InputError(f"the example {EXAMPLE} is not part of this installation: {places[0]}")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: not a folder; choose another with --output")
    output.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLE_FILES:
        if not (output / name).exists():
            write_whole(output / name, (example / name).read_bytes())
    return output / "campaign.yaml"


def _command(step: "Step", campaign_file: Path) -> list[str]:
    """The command of one step, behind the launcher that it needs; shown as a user would type it."""
    kind, *options = step.arguments
    words = ["hpcbackmap", kind, str(campaign_file), *options]
    python = [sys.executable, "-m"]
    if kind == "train":
        launch = ["--num_accelerators", "1", "--master_port", str(free_port())]
        launch += ["--no_local_rank", "--module"]
        shown = ["deepspeed", *launch, *words]
        command = [*python, "deepspeed.launcher.runner", *launch, *words]
    else:
        launch = _mpirun() if kind == "backmap" else []
        shown = [*launch, *words]
        command = [*launch, *python, *words]
    typer.secho(f"      $ {shlex.join(shown)}", dim=True)
    return command


def _mpirun() -> list[str]:
    """``mpirun -n 2`` of this environment or of the machine; nothing where there is none."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        typer.echo("      no mpirun here (the `mpi` extra brings one): one process does the work")
        return []
    return [found, "-n", str(RANKS)]


def _environment(processes: int) -> dict[str, str]:
    """Variables of the children: cores shared out, Open MPI willing to run as root and on few cores."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    ours = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_osc": "^ucx",
    }
    if os.geteuid() == 0:
        ours |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return ours | os.environ


def _export(campaign: Campaign, structures: Path) -> None:
    """Write the members and the truth of a few evenly spaced held-out frames as PDB files."""
    from hpcbackmap.store.export import export
    from hpcbackmap.store.store import open_store

    made = open_store(campaign.path(campaign.backmap.output))
    true = open_store(campaign.store_place())
    rows = made.system(made.systems[0])
    members = math.prod(campaign.draws().values())
    frames = rows.n_frames // members
    console.configure_logging(verbose=False, quiet=True)  # the files are named at the end
    partial = structures.with_name("structures.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for number in range(SHOWN_FRAMES):
        row = members * (number * (frames - 1) // (SHOWN_FRAMES - 1))
        source = int(rows.read_observable("source_frame", row, row + 1)[0])
        name = partial / f"frame-{source:05d}"
        export(made, "fg", Path(f"{name}-members.pdb"), start=row, stop=row + members)
        export(true, "fg", Path(f"{name}-truth.pdb"), start=source, stop=source + 1)
    shutil.rmtree(structures, ignore_errors=True)
    partial.replace(structures)


def _show_results(campaign: Campaign, structures: Path) -> None:
    from hpcbackmap.evaluation.campaign import five_figures

    metrics = json.loads(campaign.path("metrics.json").read_text())
    typer.echo()
    for line in five_figures(metrics):
        typer.echo(f"  {line}")
    typer.echo()
    typer.echo(
        f"structures  {structures}  ({', '.join(sorted(p.name for p in structures.iterdir()))})"
    )
    typer.echo(f"report      {campaign.path('report.html')}")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
