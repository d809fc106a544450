"""What stands at the head of every record: command, commit, machine, load, versions.

Scripts of the folders beside this file import it after `sys.path.insert(0, str(Path(__file__).parents[1]))`.
"""

import os
import platform
import shlex
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["header", "machine"]

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "deepspeed", "zarr", "mdtraj", "numpy")


def header(title: str, packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Lines of Markdown: title with the date, the command as it was given, `machine`."""
    command = shlex.join(["python", _shown(sys.argv[0]), *sys.argv[1:]])
    return [
        f"# {title}, {date.today().isoformat()}",
        "",
        f"Command: `{command}`",
        "",
        machine(packages),
        "",
    ]


def machine(packages: tuple[str, ...] = PACKAGES) -> str:
    """One line: commit, cores and their load, GPU or none, versions of Python and of ``packages``."""
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(found for found in map(_version, packages) if found)
    return (
        f"Commit {commit}; {cores} {platform.machine()} CPU cores, load {os.getloadavg()[0]:.1f} at the end, "
        f"{_gpu()}; Python {platform.python_version()}, {versions}."
    )


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _shown(script: str) -> str:
    path = Path(script).resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else path.name
