"""Records of ours that somebody has changed, and what is no JSON that a program writes."""

import json
import os

import pytest

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import read_regular, sha256_of
from hpcbackmap.runtime.parsing import json_record, json_value, sealed, unsealed

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


@pytest.mark.parametrize("read", [read_regular, sha256_of, lambda path: json_record(path, {})])
def test_pipes_and_devices_in_the_place_of_a_file_are_refused(read, tmp_path):
    """A pipe would be waited for, a device read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(InputError, match="no file that can be read"):
            read(path)
