"""`hpcbackmap verify`: a whole store is counted, a damaged one is named."""

import os
import shutil

import numpy as np
import pytest

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.runtime.parsing import sealed
from hpcbackmap.store.store import create_store, open_store
from hpcbackmap.store.verify import verify_store

FRAMES, SHARD = 10, 4


@pytest.fixture
def store(tmp_path):
    """Three shards; one frame of NaN, as quarantine leaves it."""
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    path = tmp_path / "s.zarr"
    made = create_store(
        path, {"p": ladder}, {"p": FRAMES}, ["fg", "ca"], StoreConfig(), {}, shard_frames=SHARD,
        observables={"member": "int64"},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(FRAMES, ladder.topology.n_atoms, 3)).astype(np.float32)
    atoms[5] = np.nan
    for shard in range(3):
        part = slice(shard * SHARD, (shard + 1) * SHARD)
        levels = {"fg": atoms[part], "ca": atoms[part][:, ladder.topology.ca_index]}
        made.system("p").write_shard(shard, levels, {"member": np.arange(FRAMES)[part]})
    made.mark_complete()
    return path, ladder.topology.n_atoms + ladder.topology.n_residues


def test_whole_store_is_counted(store):
    path, particles = store
    found = verify_store(path, LocalComm())
    assert (found["frames"], found["shards"], found["frames_without_numbers"]) == (FRAMES, 3, 1)
    assert found["bytes"] == FRAMES * (12 * particles + 8)


def test_content_tells_whether_two_stores_hold_the_same(store, tmp_path):
    path, _ = store
    copy = shutil.copytree(path, tmp_path / "copy.zarr")
    content = verify_store(path, LocalComm())["content"]
    assert verify_store(copy, LocalComm())["content"] == content
    again = open_store(copy, incomplete_ok=True)
    system = again.system("p")
    levels = {name: system.read(name, SHARD, 2 * SHARD) for name in ("fg", "ca")}
    system.write_shard(1, levels, {"member": np.zeros(SHARD, dtype=np.int64)})
    again.mark_complete()
    assert verify_store(copy, LocalComm())["content"] != content


@pytest.mark.parametrize("array", ["fg", "ca"])
def test_damaged_and_missing_shards_are_named(store, array):
    path, _ = store
    files = sorted(path.glob(f"systems/p/particles/{array}/position/value/c/*/0/0"))
    data = bytearray(files[0].read_bytes())
    data[len(data) // 3] ^= 1
    files[0].write_bytes(data)
    files[2].unlink()
    with pytest.raises(InputError) as error:
        verify_store(path, LocalComm())
    assert f"shard 0 of systems/p/particles/{array}/position/value is damaged" in str(error.value)
    assert f"shard 2 of systems/p/particles/{array}/position/value is missing" in str(error.value)


def test_a_changed_record_of_a_shard_is_named(store):
    """Records that a backmapping leaves in its output; those of former versions have no seal."""
    path, _ = store
    records = path / ".shards"
    records.mkdir()
    text = sealed({"rows": 8, "quarantined": []})
    (records / "p.00000000.json").write_text(text)
    (records / "p.00000001.json").write_text('{"rows": 8, "quarantined": []}')
    assert verify_store(path, LocalComm())["status"] == "whole"
    (records / "p.00000000.json").write_text(text.replace("8", "4", 1))
    with pytest.raises(InputError, match=r"p\.00000000\.json: damaged record of a shard"):
        verify_store(path, LocalComm())


@pytest.mark.parametrize("name", ["zarr.json", "systems/p/particles/fg/position/value/zarr.json"])
def test_metadata_that_are_a_pipe_or_too_deep_are_named(store, name):
    path, _ = store
    (path / name).write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"s\.zarr"):
        verify_store(path, LocalComm())
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(InputError, match="no file that can be read"):
        verify_store(path, LocalComm())
