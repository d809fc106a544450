"""Amino acid sequences as users write them: FASTA text, one-letter codes, or a file of either."""

import errno
from pathlib import Path

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import read_regular

__all__ = ["read_sequences", "sequence_option", "text_option"]


def read_sequences(text: str | list[str]) -> list[str]:
    """One-letter codes of each chain, of FASTA text or of a list."""
    if isinstance(text, list):
        return ["".join(chain.split()).upper() for chain in text]
    chains = [""]
    for line in text.split("\n"):
        if line.startswith(">"):
            chains.append("")
        else:
            chains[-1] += "".join(line.split()).upper()
    return chains[1:] if len(chains) > 1 and not chains[0] else chains


def text_option(given: str | Path) -> str | None:
    """Text of the file that an option names; None if there is none of this name, so that it may be letters.

    Raises InputError for a file that cannot be read as text.
    """
    try:
        if "\n" in str(given) or not Path(given).exists():
            return None
        return read_regular(given).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{given}: no text that can be read: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise InputError(f"{given}: {error.strerror or error}") from None


def sequence_option(given: str) -> list[str]:
    """One-letter codes of each chain, from what ``--sequence`` was given: a file, FASTA text, or letters.

    Raises InputError for a file that cannot be read, ConfigError for letters that are no standard residue.
    """
    text = text_option(given)
    if text is None and ("/" in given or "." in given):
        raise InputError(f"{given}: no such file; --sequence takes a FASTA file or letters")
    text = given if text is None else text
    chains = [chain.removesuffix("*") for chain in read_sequences(text)]
    letters = {template.letter for template in RESIDUES.values()}
    for number, chain in enumerate(chains):
        place = next((k for k, letter in enumerate(chain) if letter not in letters), None)
        if place is not None:
            which = f" of chain {number + 1}" if len(chains) > 1 else ""
            raise ConfigError(
                f"--sequence: {chain[place]!r} at position {place + 1}{which} is no standard residue"
            )
        if not chain:
            raise ConfigError(f"--sequence: chain {number + 1} of {len(chains)} is empty")
    return chains
