"""How the commands speak and how they end: log lines, results, one-line errors, exit codes.

Results go to standard output, everything else to standard error. Of several ranks only the first speaks,
unless another one fails alone.
"""

import json
import logging
import os
import sys
import time
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from hpcbackmap.runtime.errors import HpcbackmapError, OutputError, Stopped
from hpcbackmap.runtime.files import UNWRITABLE
from hpcbackmap.runtime.launcher import launched_rank
from hpcbackmap.runtime.parsing import printable

__all__ = ["CommandGroup", "configure_logging", "run", "show", "show_lines"]

INTERRUPTED = 130
FAIL_ALIKE_SECONDS = 2.0
"""How long a rank that failed waits for the first rank to fail alike and say so for both."""


class CommandGroup(TyperGroup):
    """Ends every command: errors of the user in one line and with their exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HpcbackmapError as error:
            _fail(str(error), error.exit_code, alone=not isinstance(error, Stopped))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _fail(where + str(error.strerror), OutputError.exit_code, alone=True)
        except KeyboardInterrupt:
            if launched_rank() == 0:
                typer.echo("hpcbackmap: interrupted; run the same command again", err=True)
            raise typer.Exit(INTERRUPTED) from None


def run(app: typer.Typer, arguments: list[str] | None) -> None:
    """Run ``app``; an unexpected exception keeps its traceback and takes all ranks down."""
    _open_standard_streams()
    try:
        app(args=arguments, prog_name="hpcbackmap")
    except Exception:
        traceback.print_exc()
        _end_other_ranks(1)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Closed ones lead nowhere: the next file that is opened would take their place, and be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_RDWR
            )  # takes the lowest number that is free, which is this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def configure_logging(verbose: bool, quiet: bool = False) -> None:
    """Log lines of this package on standard error: coloured on a terminal, plain elsewhere."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("hpcbackmap")
    logger.handlers = [handler]
    logger.propagate = False
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logger.setLevel(level if launched_rank() == 0 else logging.WARNING)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result once: one JSON document, or indented ``key  value`` lines."""
    show_lines([json.dumps(result, indent=2, default=str)] if as_json else _lines(result))


def show_lines(lines: list[Any]) -> None:
    """Print lines once, whatever the number of ranks."""
    if launched_rank() == 0:
        for line in lines:
            typer.echo(printable(str(line)))


def _lines(result: dict[str, Any], indent: str = "") -> list[str]:
    width = max((len(str(key)) for key in result), default=0)
    lines = []
    for key, value in result.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}")
            lines += _lines(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for item in value:
                lines.append(f"{indent}{key}")
                lines += _lines(item, indent + "  ")
        else:
            lines.append(f"{indent}{key!s:<{width}}  {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    if value is None or value == {}:
        return "none"
    return str(value)


def _fail(message: str, code: int, alone: bool) -> None:
    """Say why in one line and exit. ``alone``: this rank may be the only one, so end the others."""
    rank = launched_rank()
    line = printable(" ".join(message.split()))
    if rank == 0:
        typer.echo(f"hpcbackmap: error: {line}", err=True)
    elif alone:
        time.sleep(FAIL_ALIKE_SECONDS)
        typer.echo(f"hpcbackmap: error: [rank {rank}] {line}", err=True)
    if alone:
        _end_other_ranks(code)
    raise typer.Exit(code)


def _end_other_ranks(code: int) -> None:
    from hpcbackmap.runtime.mpi import abort

    sys.stderr.flush()
    abort(code)
