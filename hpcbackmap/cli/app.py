"""The command line: its commands in order, and how they are run.

A command is loaded when it is called, its arguments when they are read: what one command needs costs the
others nothing, and a list of commands needs none of them. Commands parse and call; what is heavy is imported
inside, after the campaign has been read, so that a mistake in it is told at once.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command_from_info
from typer.models import CommandInfo

from hpcbackmap import __version__
from hpcbackmap.runtime import console
from hpcbackmap.runtime.allocator import keep_freed_memory

__all__ = ["COMMANDS", "app", "function_of", "main"]

COMMANDS = (
    *("demo", "init", "ingest", "train", "backmap", "evaluate", "report"),
    *("export", "artifact", "inspect", "verify"),
    *("submit", "status", "cancel"),
    "doctor",
)
"""In the order of `--help`; each is the function of its name in the module of its name."""


class Commands(console.CommandGroup):
    """The commands, loaded by name; a list of them shows the first lines of their docstrings."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        if self._listing:
            return TyperCommand(name, help=_first_line(name))
        return get_command_from_info(
            CommandInfo(name=name, callback=function_of(name)),
            pretty_exceptions_short=False,
            rich_markup_mode=self.rich_markup_mode,
        )

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    cls=Commands,
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


def function_of(name: str) -> Callable[..., None]:
    """The function that is a command; loads its module."""
    found: Callable[..., None] = getattr(import_module(f"hpcbackmap.cli.{name}"), name)
    return found


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


def _first_line(name: str) -> str:
    """Of a command's docstring, without loading the command."""
    module = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n\n")[0]
    return ""
