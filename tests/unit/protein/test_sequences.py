"""Sequences as users write them."""

import pytest

from hpcbackmap.protein.sequences import read_sequences, sequence_option
from hpcbackmap.runtime.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("text", "chains"),
    [
        ("acd efg", ["ACDEFG"]),
        (">one\nACD\nEFG\n>two\nHIK\n", ["ACDEFG", "HIK"]),
        (["ac d", "EF"], ["ACD", "EF"]),
    ],
)
def test_letters_lists_and_fasta(text, chains):
    assert read_sequences(text) == chains


def test_a_file_is_read_and_a_star_ends_a_chain(tmp_path):
    path = tmp_path / "two.fasta"
    path.write_text(">a\nACD*\n>b\nEFG\n")
    assert sequence_option(str(path)) == ["ACD", "EFG"]
    path.write_bytes(b"\xef\xbb\xbf>a\r\nACD\r\n")
    assert sequence_option(str(path)) == ["ACD"]
    with pytest.raises(InputError, match="a folder, no file that can be read"):
        sequence_option(str(tmp_path))
    assert sequence_option("A" * 5000) == ["A" * 5000]


def test_letters_may_be_longer_than_any_name_of_a_file():
    assert sequence_option("ACDEF" * 1000) == ["ACDEF" * 1000]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("no/such.fasta", InputError, "no such file"),
        ("ACBD", ConfigError, "'B' at position 3"),
        (">a\nACD\n>b\nAXD\n", ConfigError, "position 2 of chain 2"),
        (">a\nACD\n>b\n", ConfigError, "chain 2 of 2 is empty"),
    ],
)
def test_mistakes_are_placed(given, error, words):
    with pytest.raises(error, match=words):
        sequence_option(given)
