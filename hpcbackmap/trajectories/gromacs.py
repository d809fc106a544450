"""Names of particles from a topology of GROMACS: ``.top``, or an ``.itp`` with its molecules once each.

``#include`` is followed where the file is there; force fields that are not beside it hold no molecules that are
missed, or the molecule that is missed is named. ``#ifdef`` takes what ``#define`` has said.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.text import Rows, bad_line, decode, lines_of, suffix_of

__all__ = ["gromacs_rows", "is_gromacs"]

SUFFIXES = (".itp", ".top")
DEEPEST = 32
"""Files that include each other."""
MOST = 30_000_000
"""Particles; more are a mistake in a number."""
AMBER = b"%VERSION"
"""How a ``.top`` of AMBER begins."""


class _Atom(NamedTuple):
    name: str
    residue_name: str
    number: int


@dataclass
class _Contents:
    """What a topology says. kinds: atoms of each molecule type. system: molecules in order, with their numbers
    and where they are asked for. missing: included files that are not there.
    """

    kinds: dict[str, list[_Atom]] = field(default_factory=dict)
    system: list[tuple[str, int, str, int]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)


def is_gromacs(path: str) -> bool:
    """By the suffix, and the first line where AMBER has the same."""
    if suffix_of(path) not in SUFFIXES:
        return False
    return not next(lines_of(path))[1].startswith(AMBER)


def gromacs_rows(path: str) -> Rows:
    """Every particle of the system, molecule by molecule. Raises InputError that names file and line."""
    contents = _Contents()
    _read(str(path), contents, 0)
    system = contents.system or [(name, 1, str(path), 1) for name in contents.kinds]
    if not any(contents.kinds.values()):
        raise InputError(
            f"{path}: no [ atoms ]; this is no topology of GROMACS that names particles"
        )
    rows = Rows([], [], [], [], [], [], [], [])
    strand = 0
    for name, count, where, line in system:
        if name not in contents.kinds:
            absent = "; not found: " + ", ".join(contents.missing) if contents.missing else ""
            raise bad_line(where, line, f"no [ moleculetype ] is named {name[:40]}{absent}")
        atoms = contents.kinds[name]
        if rows.n_atoms + count * len(atoms) > MOST:
            raise bad_line(
                where, line, f"{count} molecules of {name[:40]} are more than fit in memory"
            )
        for _ in range(count):
            rows.names.extend(atom.name for atom in atoms)
            rows.residue_names.extend(atom.residue_name for atom in atoms)
            rows.numbers.extend(atom.number for atom in atoms)
            rows.strands.extend([strand] * len(atoms))
            strand += 1
    for column in (rows.insertions, rows.chains, rows.segments, rows.elements):
        column.extend([""] * rows.n_atoms)
    return rows


def _read(path: str, contents: _Contents, depth: int) -> None:
    if depth > DEEPEST:
        raise InputError(f"{path}: files include each other more than {DEEPEST} deep")
    section, kind = "", ""
    for number, text in _active(path, contents, depth):
        if text.startswith("["):
            section = text.strip("[] \t").lower()
        elif section == "moleculetype":
            kind = text.split()[0]
            contents.kinds[kind] = []
        elif section == "atoms":
            if kind not in contents.kinds:
                raise bad_line(path, number, "[ atoms ] before any [ moleculetype ]")
            contents.kinds[kind].append(_atom(path, number, text.split()))
        elif section == "molecules":
            words = text.split()
            if len(words) < 2 or not words[1].isdigit():
                raise bad_line(path, number, "[ molecules ] has a name and a number on each line")
            contents.system.append((words[0], int(words[1]), path, number))


def _active(path: str, contents: _Contents, depth: int) -> Iterator[tuple[int, str]]:
    """Lines without comments and directives, those in brackets that ``#ifdef`` leaves."""
    taken: list[bool] = []
    for number, line in lines_of(path):
        text = decode(line).partition(";")[0].strip()
        if not text.startswith("#"):
            if text and all(taken):
                yield number, text
            continue
        word, _, rest = text[1:].strip().partition(" ")
        rest = rest.strip()
        if word in ("ifdef", "ifndef", "else", "endif"):
            _branch(path, number, word, rest in contents.defined, taken)
        elif all(taken) and word == "define":
            contents.defined.add(rest.partition(" ")[0])
        elif all(taken) and word == "include":
            _include(path, rest.strip('"<> '), contents, depth)


def _branch(path: str, number: int, word: str, defined: bool, taken: list[bool]) -> None:
    """Change ``taken``, whether each open ``#ifdef`` is followed."""
    if word in ("ifdef", "ifndef"):
        taken.append(defined == (word == "ifdef"))
        return
    if not taken:
        raise bad_line(path, number, f"#{word} without #ifdef")
    last = taken.pop()
    if word == "else":
        taken.append(not last)


def _include(path: str, name: str, contents: _Contents, depth: int) -> None:
    there = Path(path).parent / name
    if there.is_file():
        _read(str(there), contents, depth + 1)
    else:
        contents.missing.append(name)


def _atom(path: str, number: int, words: list[str]) -> _Atom:
    """Of ``nr type resnr residue atom …``."""
    if len(words) < 5:
        raise bad_line(path, number, f"{len(words)} words where an atom has five at least")
    try:
        return _Atom(words[4], words[3], int(words[2]))
    except ValueError:
        raise bad_line(path, number, f"{words[2][:20]!r} is no number of a residue") from None
