"""Who may import whom, as docs/architecture.md says, and what an import may cost."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "hpcbackmap"

MODELS = {"runtime", "protein", "resolution", "config"}
DATA = MODELS | {"trajectories", "store"}
MAY_IMPORT = {
    "runtime": set(),
    "protein": {"runtime"},
    "resolution": {"runtime", "protein"},
    "config": {"runtime", "resolution"},
    "trajectories": MODELS,
    "store": MODELS | {"trajectories"},
    "ingest": DATA,
    "stages": MODELS,
    "finishing": {"runtime", "protein"},
    "metrics": {"protein", "resolution", "finishing"},
    "training": DATA | {"stages"},
    "backmapping": DATA | {"stages", "metrics", "finishing"},
    "evaluation": DATA | {"stages", "metrics"},
    "report": DATA | {"metrics", "evaluation"},
    "cluster": DATA | {"training", "backmapping"},
    "cli": DATA
    | {
        "ingest",
        "stages",
        "training",
        "backmapping",
        "finishing",
        "metrics",
        "evaluation",
        "report",
        "cluster",
    },
    "api": DATA | {"stages", "backmapping", "evaluation"},
}
"""Rooms by whom they may know; a room may always import from itself."""
FACES = {"__main__", "__init__"}
ONLY_IN = {
    "deepspeed": {"training"},
    "mpi4py": {"runtime"},
    "zarr": {"store", "ingest"},
    "typer": {"cli", "runtime"},
}
HEAVY = {"torch", "torch_geometric", "deepspeed", "mpi4py", "mdtraj", "zarr", "matplotlib", "scipy"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """(line, full module name) of every import in a file, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            module = str(node.module)
            if module == "hpcbackmap":
                found += [(node.lineno, f"hpcbackmap.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, module))
    return found


def violations(path: Path, room: str) -> list[str]:
    wrong = []
    for line, module in imported_modules(path):
        top, _, rest = module.partition(".")
        target = rest.split(".")[0]
        if top == "hpcbackmap" and room not in FACES:
            if target not in MAY_IMPORT[room] | {room, "__version__"}:
                wrong.append(f"{path.name}:{line}: {room} must not import {target}")
        elif room not in ONLY_IN.get(top, {room}):
            wrong.append(f"{path.name}:{line}: only {', '.join(ONLY_IN[top])} may import {top}")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_list(path):
    assert violations(path, room_of(path)) == []


def test_the_rule_catches_a_breach(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    import deepspeed\n    from hpcbackmap.training import trainer\n")
    assert len(violations(path, "stages")) == 2


@pytest.mark.parametrize(
    "package", ["", "store", "stages", "training", "backmapping", "evaluation", "metrics"]
)
def test_importing_a_room_loads_nothing_heavy(package):
    loaded = modules_after(f"import hpcbackmap.{package}".rstrip("."))
    assert loaded & HEAVY == set()


def test_the_command_answers_help_without_torch():
    code = "import sys; sys.argv[1:] = ['--help']\nfrom hpcbackmap.cli.app import main\n"
    loaded = modules_after(code + "try: main()\nexcept SystemExit: pass")
    assert loaded & HEAVY == set()


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``code``."""
    report = "\nimport sys; print('MODULES', *{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    return set(result.stdout.partition("MODULES")[2].split())
