"""Commands run side by side as child processes: their log lines merged, their whole output kept.

Every child leads a session of its own, so that a Ctrl-C reaches the parent alone; the parent then asks the
whole process tree of every child to stop (SIGTERM) and waits for it.
"""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import typer

from hpcbackmap.runtime.errors import IncompleteError

__all__ = ["run_together"]

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (?P<text>.*)")
ERROR_LINE = re.compile(r"hpcbackmap: error: (?P<text>.*)")
STOP_SECONDS = 60.0
"""How long a child may take to end after SIGTERM; a training writes its checkpoint meanwhile."""


def run_together(commands: dict[str, list[str]], logs: Path, environment: dict[str, str]) -> None:
    """Run named commands at once and wait for all; the first failure stops the others.

    logs: folder for one ``<name>.log`` each. Log lines of this package are shown as they come, behind the
    name where there are several commands. Raises IncompleteError that says why a command failed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    width = max(len(name) for name in commands) if len(commands) > 1 else 0
    children: list[_Child] = []
    try:
        for name, command in commands.items():
            shown = f"      {name:<{width}}  " if width else "      "
            children.append(_Child(name, command, logs / f"{name}.log", environment, shown))
        failed = _first_failure(children)
    finally:
        _stop([child for child in children if child.process.poll() is None])
        for child in children:
            child.reader.join()
    if failed:
        why = failed.error or f"exit code {failed.process.returncode}"
        raise IncompleteError(f"{failed.name}: {why} (its whole output: {failed.log})")


class _Child:
    """One running command and the thread that reads what it says."""

    def __init__(
        self, name: str, command: list[str], log: Path, environment: dict[str, Any], shown: str
    ):
        self.name, self.log, self.shown = name, log, shown
        self.error: str | None = None
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("a") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if match := LOG_LINE.match(line):
                    typer.echo(self.shown + match["text"])
                elif match := ERROR_LINE.match(line):
                    self.error = match["text"]


def _first_failure(children: list["_Child"]) -> "_Child | None":
    """Wait until a child fails, and return it, or all have ended well."""
    while True:
        codes = [child.process.poll() for child in children]
        for child, code in zip(children, codes, strict=True):
            if code:
                return child
        if None not in codes:
            return None
        time.sleep(0.1)


def _stop(children: list[_Child]) -> None:
    """End the process groups: SIGTERM, and SIGKILL for what outlives `STOP_SECONDS` or a second Ctrl-C."""
    for child in children:
        os.killpg(child.process.pid, signal.SIGTERM)
    try:
        deadline = time.monotonic() + STOP_SECONDS
        while any(_alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for child in children:
            if _alive(child):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


def _alive(child: _Child) -> bool:
    """Whether any process of the child's group is left, not only its leader."""
    child.process.poll()
    try:
        os.killpg(child.process.pid, 0)
    except ProcessLookupError:
        return False
    return True
