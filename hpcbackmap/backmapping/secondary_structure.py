"""``--secondary-structure``: letters, or a file of them, told to the stage that makes traces of beads."""

from pathlib import Path
from typing import Any

from hpcbackmap.protein.sequences import text_option
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.trace.model import Trace
from hpcbackmap.stages.trace.secondary_structure import SecondaryStructure

__all__ = ["read_secondary_structure", "told"]

SUFFIXES = (".txt", ".ss", ".ss2", ".dat", ".fasta", ".fa", ".dssp", ".seq", ".ss8", ".ss3")
"""Of names that are those of files; a dot alone is a letter of residues that nothing is known of."""


def read_secondary_structure(given: str, folder: Path) -> SecondaryStructure:
    """``given`` is letters or the name of a file that holds them, FASTA headers and line breaks left out.

    A name is looked up from ``folder``. Raises InputError for letters that are none.
    """
    path = folder / given
    text = text_option(path)
    if text is None:
        if Path(given).suffix in SUFFIXES or given.startswith(("./", "../", "/")):
            raise InputError(f"{path}: no such file; --secondary-structure takes a file or letters")
        return SecondaryStructure(given)
    try:
        lines = text.splitlines()
        return SecondaryStructure("".join(line for line in lines if not line.startswith(">")))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def told(stages: list[Stage[Any]], structure: SecondaryStructure) -> list[Stage[Any]]:
    """The stages, of which the one that makes C-alpha traces of beads knows ``structure``.

    Raises InputError where there is none, or one that cannot use it.
    """
    found = [stage for stage in stages if isinstance(stage, Trace)]
    if not found:
        raise InputError(
            "secondary structure helps where a trace stage makes C-alpha atoms of beads of several residues; "
            "here there is none: leave it out"
        )
    for stage in found:
        if stage.denoiser is None:
            raise InputError(
                f"stage {stage.name}: has no denoiser, which is what takes secondary structure; take the "
                "shipped stage, or train it again"
            )
        stage.structure = structure
    return stages
