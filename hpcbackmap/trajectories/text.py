"""Text files of particles, plain or gzip: numbered lines in bounded memory, and errors that name them."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import require_file

__all__ = ["Frame", "Rows", "TextFile", "bad_line", "decode", "lines_of", "numbers_of", "suffix_of"]

NO_TEXT = {
    codecs.BOM_UTF16_LE: "is UTF-16 text; save it as plain text (iconv -f UTF-16 -t UTF-8)",
    codecs.BOM_UTF16_BE: "is UTF-16 text; save it as plain text (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is compressed by gzip; give it a name that ends in .gz",
    b"BZh": "is compressed by bzip2; unpack it",
    b"PK\x03\x04": "is a ZIP archive; unpack it",
}
"""First bytes of files that are not lines of plain text, and what to do about each."""
LONGEST = 1 << 16
"""Bytes of a line; a longer one is no text of particles."""


class Frame(NamedTuple):
    """positions: float64 [P, 3], nm. cell: [3, 3], nm, rows are vectors, or None. time: ps, or NaN."""

    positions: np.ndarray
    cell: np.ndarray | None
    time: float


class Rows(NamedTuple):
    """What a file says of each of its particles, one entry a particle; empty text where it says nothing.

    strands: counts what certainly parts molecules (TER, label of an entity, a component of bonds).
    """

    names: list[str]
    residue_names: list[str]
    numbers: list[int]
    insertions: list[str]
    chains: list[str]
    segments: list[str]
    strands: list[int]
    elements: list[str]

    @property
    def n_atoms(self) -> int:
        return len(self.names)


class TextFile(Protocol):
    """What is read of a text file: rows: its particles; first: its first frame."""

    @property
    def rows(self) -> Rows: ...
    @property
    def first(self) -> Frame: ...

    def frames(self) -> Iterator[Frame]: ...


def suffix_of(path: str | Path) -> str:
    """Lower-case suffix without ``.gz``: how the format of ``path`` is known."""
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name).suffix


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO | gzip.GzipFile]:
    require_file(path)
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    try:
        with gzip.open(path) if str(path).lower().endswith(".gz") else open(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: cannot be read, perhaps truncated ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def lines_of(path: str) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1. Raises InputError for a file that is none, empty, HTML or not text."""
    with _opened(path) as file:
        begin = file.read(1000)
        _require_plain(path, begin)
        file.seek(len(codecs.BOM_UTF8) if begin.startswith(codecs.BOM_UTF8) else 0)
        number = 0
        while line := file.readline(LONGEST):
            number += 1
            if len(line) == LONGEST:
                raise InputError(f"{path}: line {number} has over {LONGEST} bytes; this is no text")
            yield number, line


def _require_plain(path: str, begin: bytes) -> None:
    """Refuse a file that begins like none of lines of ASCII text."""
    for mark, what in NO_TEXT.items():
        if begin.startswith(mark):
            raise InputError(f"{path}: {what}")
    if not begin.strip():
        raise InputError(f"{path}: the file is empty")
    if begin.lstrip().startswith(b"<"):
        raise InputError(
            f"{path}: holds HTML or XML, no structure; was a web page saved in its place?"
        )
    if b"\r" in begin and b"\n" not in begin:
        raise InputError(
            f"{path}: its lines end with a carriage return alone; convert it (tr '\\r' '\\n')"
        )


def bad_line(path: str, number: int, what: str) -> InputError:
    return InputError(f"{path}: line {number}: {what}")


def decode(piece: bytes) -> str:
    """Text of a field, whatever its bytes."""
    return piece.decode("latin-1").strip().replace("\0", "")


def numbers_of(fields: list[bytes], width: int, lines: list[int], path: str) -> np.ndarray:
    """Fields of ``width`` numbers each as float64 [P, width]; ``lines``: where each field stands.

    Every field has ``width`` columns of equal size. Columns full of stars, as programs write what does not fit
    into them, are no numbers (NaN). Raises InputError that names the line.
    """
    size = len(fields[0]) // width
    text = b"".join(fields)
    if b"*" in text:
        fields = [_without_stars(field, size) for field in fields]
        text = b"".join(fields)
    if len(text) == width * size * len(fields):
        try:
            return np.frombuffer(text, f"S{size}").astype(np.float64).reshape(-1, width)
        except ValueError:
            pass
    for field, line in zip(fields, lines, strict=True):
        for k in range(width):
            piece = field[k * size : (k + 1) * size]
            try:
                float(piece)
            except ValueError:
                shown = decode(piece) or "nothing"
                raise bad_line(path, line, f"{shown!r} stands where a coordinate belongs") from None
    raise bad_line(path, lines[0], "its coordinates are not understood")


def _without_stars(field: bytes, size: int) -> bytes:
    """The same with ``nan`` in every column of ``size`` that holds stars alone."""
    columns = [field[at : at + size] for at in range(0, len(field), size)]
    stars = [column.strip() and not column.strip().strip(b"*") for column in columns]
    return b"".join(
        b"nan".rjust(len(column)) if full else column
        for column, full in zip(columns, stars, strict=True)
    )
