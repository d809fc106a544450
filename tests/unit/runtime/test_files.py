"""Files that appear whole, under one name, by one run."""

import os
import re
import subprocess
import sys

import pytest

from hpcbackmap.runtime.errors import InputError, OutputError, ResourceError
from hpcbackmap.runtime.files import (
    Lock,
    ascii_name,
    free_output,
    only_writer,
    require_file,
    scratch_of,
    sha256_of,
    write_whole,
    writing,
)

WRITER = """
import sys
from pathlib import Path
from hpcbackmap.runtime.files import only_writer, scratch_of
path = Path(sys.argv[1])
with only_writer(path):
    scratch_of(path).write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that writes ``out.txt`` until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out.txt")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_told_who_writes(tmp_path, other_run):
    path = tmp_path / "out.txt"
    with pytest.raises(ResourceError) as caught, only_writer(path):
        pass
    said = rf"{re.escape(str(path))}: process {other_run.pid} on \S+ since 20\d\d-.* is writing it"
    assert re.match(said, str(caught.value))
    other_run.communicate()
    with only_writer(path):
        write_whole(path, "whole")
    assert [item.name for item in tmp_path.iterdir()] == ["out.txt"]


def test_what_a_killed_run_left_is_named_and_removed(tmp_path, other_run, caplog):
    other_run.kill()
    other_run.wait()
    path = tmp_path / "out.txt"
    (left,) = tmp_path.glob(".out.*.part.txt")
    other = tmp_path / ".out.elsewhere-1.part.txt"
    other.write_text("of another host")
    with only_writer(path):
        assert not left.exists()
        assert other.exists()
    assert f"{left}: left by a run that was killed" in caplog.text


def test_a_lock_that_its_holder_has_removed_does_not_count(tmp_path):
    path = tmp_path / "lock"
    first = Lock.take(path, "it")
    path.unlink()
    second = Lock.take(path, "it")
    with pytest.raises(ResourceError):
        Lock.take(path, "it")
    first.close()
    second.close()


def test_shared_locks_keep_out_a_whole_one(tmp_path):
    parts = [Lock.take(tmp_path / "lock", "it", shared=True) for _ in range(2)]
    with pytest.raises(ResourceError):
        Lock.take(tmp_path / "lock", "it")
    for part in parts:
        part.close()
    Lock.take(tmp_path / "lock", "it").close()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, full_disk):
    path = tmp_path / "a.json"
    write_whole(path, "before")
    with full_disk(100), pytest.raises(OutputError, match=re.escape(str(path))):
        write_whole(path, "x" * 1000)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_short_write_of_numpy_is_called_a_full_disk(tmp_path):
    """It counts numbers and knows no errno."""
    said = pytest.raises(OutputError, match=r"a\.npy: No space left .*73696 written")
    with said, writing(tmp_path / "a.npy"):
        raise OSError("92400 requested and 73696 written")


@pytest.mark.parametrize("name", ["a" * 250 + ".xtc", "é" * 120 + ".xtc", "José's beads.xtc", "x"])
def test_long_and_foreign_names_have_room(tmp_path, name):
    path = tmp_path / name
    with only_writer(path):
        write_whole(path, "whole")
    assert path.read_text() == "whole"
    assert scratch_of(path).name.endswith(path.suffix)


def test_only_files_are_written_over_and_only_when_asked(tmp_path):
    path, pipe, loop = tmp_path / "a", tmp_path / "pipe", tmp_path / "loop"
    free_output(path, force=False)
    path.write_text("there")
    with pytest.raises(OutputError, match="add --force"):
        free_output(path, force=False)
    free_output(path, force=True)
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for place in (pipe, "/dev/null"):
        with pytest.raises(OutputError, match="a device or a pipe"):
            free_output(type(path)(place), force=True)
        with pytest.raises(InputError, match="a device or a pipe"):
            require_file(place)
    with pytest.raises(OutputError, match=r"loop: .*links"):
        free_output(loop, force=True)
    with pytest.raises(InputError, match=r"loop: .*links"):
        require_file(loop)
    with pytest.raises(InputError, match="a folder"):
        require_file(tmp_path)


def test_a_foreign_name_has_an_ascii_one(tmp_path):
    path = tmp_path / "José" / "été.xtc"
    path.parent.mkdir()
    other = ascii_name(path)
    assert other.isascii()
    assert other.endswith(".xtc")
    with open(other, "w") as file:
        file.write("there")
    assert path.read_text() == "there"
    assert ascii_name(tmp_path / "a.xtc") == str(tmp_path / "a.xtc")
    assert ascii_name(path) == other


def test_one_hash_of_several_files(tmp_path):
    for name, text in (("a", "x"), ("b", "y"), ("c", "xy")):
        (tmp_path / name).write_text(text)
    assert sha256_of(tmp_path / "a", tmp_path / "b") == sha256_of(tmp_path / "c")
