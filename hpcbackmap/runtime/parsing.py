"""Text of people and of half-copied files into values, with one error in words for all that can be wrong."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import read_regular, reason

__all__ = [
    "json_digest",
    "json_record",
    "json_value",
    "not_printable",
    "printable",
    "require_keys",
    "sealed",
    "unsealed",
    "yaml_value",
]

SEAL = "seal"
"""Key of a record for the SHA-256 of its other keys."""

UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control, format and surrogate characters, line and paragraph separators."""
MOST_VALUES = 10_000_000
"""In a YAML file; a mapping of a large protein has 50,000."""
JOINERS = frozenset("\u200c\u200d")
"""Format characters that some scripts cannot be written without."""


def not_printable(text: str) -> str | None:
    """The first character that has no place in one printable line, as ``U+000A``; None if there is none."""
    found = (character for character in text if _is_unprintable(character))
    return next((f"U+{ord(character):04X}" for character in found), None)


def printable(text: str) -> str:
    """Text from a file for a terminal: what would move the cursor or change colours is written out."""
    return "".join(
        ascii(character)[1:-1]
        if _is_unprintable(character) and character not in "\n\t"
        else character
        for character in text
    )


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in UNPRINTABLE and character not in JOINERS


def yaml_value(text: str) -> Any:
    """Raises ValueError, in words, for what is no YAML, or none that a person would write."""
    import yaml

    try:
        value = yaml.safe_load(text)
        if _unfolded(value, {}) > MOST_VALUES:
            raise ValueError(f"aliases that unfold to more than {MOST_VALUES} values")
        return value
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("brackets within brackets, too deep") from None


def _unfolded(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those of an alias once for each place where it stands."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # within itself it has no end
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(value)]


def json_value(text: str | bytes) -> Any:
    """Raises ValueError for what is no JSON, or none that a program of ours would write."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets, too deep") from None


def json_digest(record: Any) -> str:
    """SHA-256 of a JSON-ready value, whatever the order of its keys and its line breaks."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sealed(record: dict[str, Any]) -> str:
    """A JSON-ready record with its SHA-256, as text."""
    return json.dumps(record | {SEAL: json_digest(record)})


def unsealed(text: str | bytes) -> dict[str, Any]:
    """The record that `sealed` made this text of. Raises ValueError if it has changed.

    Records of former versions have no seal and are taken as they are.
    """
    record = json_value(text)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if SEAL in record and record.pop(SEAL) != json_digest(record):
        raise ValueError("it is not what was written, its SHA-256 differs")
    return record


def json_record(path: str | Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object from a file, in which these keys have values of these types.

    Raises InputError that names the file and the key; FileNotFoundError where there is no file.
    """
    try:
        record: dict[str, Any] = json_value(read_regular(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged, not JSON ({reason(error)})") from None
    require_keys(record, keys, str(path))
    return record


def require_keys(record: Any, keys: Mapping[str, Any], where: str) -> None:
    """Raises InputError that names the key of a JSON object that is missing, or of another type."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: damaged, not a JSON object")
    for key, kind in keys.items():
        if key not in record:
            raise InputError(f"{where}: damaged, {key} is missing")
        value = record[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"{where}: damaged, {key} is {reason(ValueError(repr(value)))}")
