"""What a command loads before it works, which is nearly all that a small task costs.

Held by the modules that are loaded, not by seconds: those depend on the machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
RUN = """
import sys
from hpcbackmap.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("CODE", end.code)
print("MODULES", *sys.modules)
"""
NUMBERS = {"numpy", "scipy", "torch", "mdtraj", "zarr", "yaml", "mpi4py"}
COMPILERS = {"torch._dynamo", "torch._inductor"}
"""Of torch; they take longer to load than the rest of it."""


def start(*words) -> tuple[str, set[str], subprocess.CompletedProcess]:
    """Exit code, modules, and all that a command said."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    text, _, modules = done.stdout.partition("MODULES")
    return text.partition("CODE ")[2].strip(), set(modules.split()), done


@pytest.fixture
def peptide(example_dir, tmp_path) -> Path:
    """C-alpha atoms of ten residues."""
    lines = (example_dir / "trpcage_top.pdb").read_text().splitlines()
    calpha = [line for line in lines if line[:4] == "ATOM" and line[12:16].strip() == "CA"]
    path = tmp_path / "ca.pdb"
    path.write_text("\n".join([*calpha[:10], "END", ""]))
    return path


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["backmap", "--help"]])
def test_help_loads_nothing_that_computes(words):
    code, modules, done = start(*words)
    assert code in ("0", "None"), done.stderr
    assert modules & NUMBERS == set()


def test_every_command_is_listed_with_what_it_does():
    from hpcbackmap.cli.app import COMMANDS, function_of

    text = " ".join(start("--help")[2].stdout.replace("│", " ").split())
    for name in COMMANDS:
        assert " ".join((function_of(name).__doc__ or "").partition("\n\n")[0].split()) in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.pdb", "-o", "a.xtc"], "missing.pdb: no such file"),
        (["{}", "-o", "a.docx"], "a.docx: can write"),
        (["{}"], "say where to write"),
        (["{}", "-o", "nowhere/a.xtc"], "nowhere"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_loaded(words, said, peptide):
    code, modules, done = start("backmap", *(word.format(peptide) for word in words))
    assert code in ("2", "3", "4"), done.stderr
    assert said in done.stderr, done.stderr
    assert modules & NUMBERS == set()


def test_a_small_task_loads_what_it_needs(peptide, tmp_path):
    code, modules, done = start("backmap", peptide, "-o", tmp_path / "atoms.pdb")
    assert code == "0", done.stderr
    unused = COMPILERS | {"torch_geometric", "deepspeed", "zarr", "pandas", "scipy"}
    assert modules & (unused | {"matplotlib", "tensorboard", "mpi4py"}) == set()
    assert "torch" in modules
