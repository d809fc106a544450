"""How commands end."""

import errno
import shlex
import subprocess
import sys

import pytest
import typer

from hpcbackmap.runtime.console import CommandGroup
from hpcbackmap.runtime.errors import OutputError
from hpcbackmap.training.failure_messages import explained


def end_of(error: OSError, capsys) -> tuple[int, str]:
    app = typer.Typer(cls=CommandGroup)

    @app.command()
    def command():
        raise error

    @app.command()
    def other():
        pass

    with pytest.raises(SystemExit) as end:
        app(["command"])
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_is_one_line(number, capsys, tmp_path):
    """Whether a training or another command writes to it."""
    error = OSError(number, "no more", "file")
    assert end_of(error, capsys) == (4, "hpcbackmap: error: file: no more\n")
    with pytest.raises(OutputError, match="file: no more"), explained(tmp_path):
        raise error


@pytest.mark.parametrize("closed", ["0", "1", "2", "12"])
def test_closed_streams_lead_nowhere(closed, tmp_path):
    """Not into the first file that is opened."""
    code = (
        "import sys; from hpcbackmap.cli.app import main\n"
        f"try: main(['inspect', {str(tmp_path)!r}])\n"
        "except SystemExit as end: sys.exit(end.code)\n"
    )
    shut = " ".join(f"{number}>&-" for number in closed)
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} {shut}"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert answer.returncode == 3
    assert "Traceback" not in answer.stderr + answer.stdout
