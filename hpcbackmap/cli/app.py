"""The command line: its commands in order, and how they are run.

Commands parse and call. What is heavy is imported inside the command that needs it, after the campaign has
been read: a mistake in the campaign is told at once.
"""

from typing import Annotated

import typer

from hpcbackmap import __version__
from hpcbackmap.cli.artifact import artifact
from hpcbackmap.cli.backmap import backmap
from hpcbackmap.cli.cancel import cancel
from hpcbackmap.cli.demo import demo
from hpcbackmap.cli.doctor import doctor
from hpcbackmap.cli.evaluate import evaluate
from hpcbackmap.cli.export import export
from hpcbackmap.cli.ingest import ingest
from hpcbackmap.cli.init import init
from hpcbackmap.cli.inspect import inspect
from hpcbackmap.cli.report import report
from hpcbackmap.cli.status import status
from hpcbackmap.cli.submit import submit
from hpcbackmap.cli.train import train
from hpcbackmap.cli.verify import verify
from hpcbackmap.runtime import console
from hpcbackmap.runtime.allocator import keep_freed_memory

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


for _command in (
    *(demo, init, ingest, train, backmap, evaluate, report),
    *(export, artifact, inspect, verify),
    *(submit, status, cancel),
    doctor,
):
    app.command()(_command)
