"""The command `doctor`: what this machine has, and what would not work on it."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from hpcbackmap import __version__
from hpcbackmap.cli.options import Json
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import HpcbackmapError, ResourceError

__all__ = ["doctor", "examine"]

LIBRARIES = ("torch", "torch_geometric", "deepspeed", "mpi4py", "zarr", "mdtraj", "numpy", "scipy")
EXTRAS = {
    "openmm": "`--relax` (pip install 'hpcbackmap[md]')",
    "gsd": "GSD files (pip install 'hpcbackmap[gsd]')",
    "s3fs": "stores in S3 (pip install 'hpcbackmap[s3]')",
    "tables": "mdtraj's H5 files (pip install tables)",
}
PATIENCE = 60.0
"""Seconds for a program that only says its version."""
ROOT = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
FEW_CORES = "export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe"
MPI_PROGRAM = "from mpi4py import MPI; print(MPI.COMM_WORLD.size, MPI.Get_library_version())"


def doctor(as_json: Json = False) -> None:
    """Show versions, devices, MPI, Slurm, extras and shipped stages, and what would not work here.

    Exit code 5 if not even `backmap` would run.
    """
    found = examine()
    if as_json:
        console.show(found, as_json)
    else:
        console.show({key: value for key, value in found.items() if key != "problems"}, as_json)
        for problem in found["problems"]:
            typer.echo(f"problem   {problem}")
        if not found["problems"]:
            typer.echo("nothing that would not work was found")
    if not found["usable"]:
        raise ResourceError("backmapping cannot run here; see the problems above")


def examine() -> dict[str, Any]:
    """What is here, by topic; ``problems``: a sentence each; ``usable``: whether backmapping can run."""
    problems: list[str] = []
    libraries = {name: _version(name) for name in LIBRARIES}
    missing = [name for name, found in libraries.items() if found is None]
    if missing:
        problems.append(f"missing: {', '.join(missing)}; pip install hpcbackmap again")
    stages = _shipped(problems) if "torch" not in missing else {}
    return {
        "hpcbackmap": f"{__version__} in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "libraries": libraries,
        "extras": {name: _version(name) or f"not here: {use}" for name, use in EXTRAS.items()},
        "devices": _devices(problems) if "torch" not in missing else "torch is missing",
        "mpi": _mpi(problems),
        "slurm": _said(["sbatch", "--version"]) or "no sbatch here; `submit --dry-run` still works",
        "shipped stages": stages,
        "this folder": _folder(problems),
        "problems": problems,
        "usable": not missing and bool(stages),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return "here" if importlib.util.find_spec(package) else None


def _said(command: list[str]) -> str | None:
    """First line that a program prints; None if it is not there, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and not done.returncode else None


def _devices(problems: list[str]) -> dict[str, str]:
    import torch

    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "cpu": f"{cores} core(s), {memory:.0f} GiB; OMP_NUM_THREADS {threads or 'not set'}",
        "torch": f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU",
    }
    for number in range(torch.cuda.device_count()):
        size = torch.cuda.get_device_properties(number).total_memory / 2**30
        found[f"cuda:{number}"] = f"{torch.cuda.get_device_name(number)}, {size:.0f} GiB"
    if torch.version.cuda and not torch.cuda.is_available():
        problems.append("torch is built for CUDA and finds no GPU: everything runs on the CPU")
    if not torch.version.cuda and shutil.which("nvidia-smi"):
        problems.append(
            "there is an NVIDIA driver, but torch is built for CPU: no GPU will be used"
        )
    return found


def _mpi(problems: list[str]) -> dict[str, str]:
    mpirun = _mpirun()
    alone = _said([sys.executable, "-c", MPI_PROGRAM])
    found = {"mpirun": str(mpirun) if mpirun else "none", "library": "none"}
    if alone is None:
        problems.append(
            "mpi4py finds no MPI library: one process works, mpirun does not; load the site's MPI or "
            "pip install 'hpcbackmap[mpi]'"
        )
        return found
    found["library"] = alone.partition(" ")[2].rstrip("\x00 ,")
    if mpirun is None:
        problems.append("no mpirun on the PATH: one process works; srun --mpi=pmix may, too")
        return found
    environment = _mpi_environment()
    if environment:
        found["needs"] = "; ".join(environment)
    done = _on_two_ranks(mpirun)
    if done != "2":
        problems.append(
            f"mpirun -n 2 started {done or 'no'} rank(s) that mpi4py knows: {mpirun} and mpi4py's library "
            "belong to different MPIs; pip install --no-binary mpi4py mpi4py with the site's MPI loaded"
        )
    return found


def _mpirun() -> Path | None:
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    return Path(found) if found else None


def _mpi_environment() -> list[str]:
    """Variables that Open MPI asks for as root and on few cores, as a shell sets them."""
    wanted = [ROOT] if os.geteuid() == 0 and "OMPI_ALLOW_RUN_AS_ROOT" not in os.environ else []
    return wanted + ([FEW_CORES] if len(os.sched_getaffinity(0)) < 2 else [])


def _on_two_ranks(mpirun: Path) -> str | None:
    """Number of ranks that two processes under mpirun count."""
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    command = [str(mpirun), "-n", "2", sys.executable, "-c", MPI_PROGRAM]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[0] if words and not done.returncode else None


def _shipped(problems: list[str]) -> dict[str, str]:
    """What each shipped stage is; one that does not load is a problem."""
    from hpcbackmap.stages.artifact import load_artifact

    found = {}
    for folder in sorted((Path(__file__).parents[1] / "weights").iterdir()):
        if not folder.is_dir():
            continue
        try:
            stage = load_artifact(folder)
        except HpcbackmapError as error:
            problems.append(f"shipped stage {folder.name}: {error}")
            continue
        count = sum(parameter.numel() for parameter in stage.parameters())
        found[folder.name] = f"{stage.kind}, {count:,} parameters"
    if not found:
        problems.append("no shipped stage can be used; reinstall, or bring stages of your own")
    return found


def _folder(problems: list[str]) -> str:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    if not os.access(here, os.W_OK):
        problems.append(f"{here}: not writable; change to a folder of your own")
    elif free < 1:
        problems.append(f"{here}: {free:.1f} GB left on this disk")
    return f"{here}, {free:.0f} GB left"
