"""Records of ours that somebody has changed, and what is no JSON that a program writes."""

import json
import os

import pytest

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import read_regular, sha256_of
from hpcbackmap.runtime.parsing import json_record, json_value, sealed, unsealed, yaml_value

RECORD = {"rows": 8, "quarantined": [{"frame": 3}], "sha256": "0" * 64}


def test_a_sealed_record_comes_back_and_a_changed_one_does_not():
    text = sealed(RECORD)
    assert unsealed(text) == RECORD
    assert unsealed(json.dumps(json.loads(text), indent=3, sort_keys=True)) == RECORD
    for changed in (text.replace('"rows": 8', '"rows": 9'), text.replace("3}]", "4}]")):
        assert changed != text
        with pytest.raises(ValueError, match="SHA-256"):
            unsealed(changed)


def test_a_record_of_a_former_version_has_no_seal():
    assert unsealed(json.dumps(RECORD)) == RECORD


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "\x00", "9" * 5000])
def test_what_is_no_json_is_one_kind_of_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        json_value(text)


def test_aliases_that_unfold_without_bound_are_refused():
    """Ten lists of ten of each other are 10^9 numbers, one of itself has no end; plain aliases are welcome."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text in (bomb, "bead: &x [1, *x]"):
        with pytest.raises(ValueError, match="aliases"):
            yaml_value(text)
    assert yaml_value("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("read", [read_regular, sha256_of, lambda path: json_record(path, {})])
def test_pipes_and_devices_in_the_place_of_a_file_are_refused(read, tmp_path):
    """A pipe would be waited for, a device read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(InputError, match="no file that can be read"):
            read(path)
