"""A frame store in object storage: made, streamed and backmapped from by its URL, on a stand-in for S3."""

import json
import logging

import fsspec
import mdtraj
import numpy as np
import pytest

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.cli.app import main
from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.runtime.errors import ConfigError, InputError, ResourceError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.shards import ShardedArrays
from hpcbackmap.store.split import split_frames
from hpcbackmap.store.store import open_store
from hpcbackmap.store.stream import FrameStream
from hpcbackmap.store.verify import verify_store

FRAMES = 60


@pytest.fixture(scope="module")
def bucket():
    """URL of an empty bucket."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("frames")
        yield "s3://frames"
    server.stop()


@pytest.fixture(scope="module")
def frames(example_dir, tmp_path_factory):
    """Topology and trajectory of the example's first frames."""
    top = str(example_dir / "trpcage_top.pdb")
    path = tmp_path_factory.mktemp("frames") / "t.xtc"
    mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[:FRAMES].save(str(path))
    return top, str(path)


def make_campaign(frames, workdir, path, ladder=("fg", "ca")) -> Campaign:
    top, trajectory = frames
    return Campaign(
        name="t",
        workdir=str(workdir),
        ladder=ladder,
        systems=[{"name": "s", "topology": top, "trajectories": [trajectory]}],
        store={"path": path, "chunk_mb": 0.02, "shard_mb": 0.03},
    )


@pytest.fixture
def campaign(frames, tmp_path):
    def make(path, ladder=("fg", "ca")):
        return make_campaign(frames, tmp_path / "work", path, ladder)

    return make


@pytest.fixture(scope="module")
def stored(bucket, frames, tmp_path_factory):
    """Campaign and summary of a store in the bucket that is read, not changed."""
    made = make_campaign(frames, tmp_path_factory.mktemp("work"), f"{bucket}/a/frames.zarr")
    return made, ingest(made, LocalComm())


@pytest.fixture(scope="module")
def local(frames, tmp_path_factory):
    """Campaign and summary of the same store in a folder."""
    made = make_campaign(frames, tmp_path_factory.mktemp("local"), "frames.zarr")
    return made, ingest(made, LocalComm())


def streamed(store, made):
    ranges = split_frames(store, made.split)["train"]
    stream = FrameStream(store, ranges, "fg", "ca", 8, 3, 0, 1, 1.0)
    batches = iter(stream)
    return [next(batches) for _ in range(8)]


def test_a_store_by_url_is_the_same_store(bucket, campaign, stored, local):
    (there, summary), (here, summary_here) = stored, local
    assert summary["status"] == "written"
    assert summary["frames_out"] == FRAMES
    assert summary["bytes"] == pytest.approx(summary_here["bytes"], rel=0.01)
    remote_store, local_store = open_store(there.store_place()), open_store(here.store_place())
    assert remote_store.digest == local_store.digest
    for remote, batch in zip(
        streamed(remote_store, there), streamed(local_store, here), strict=True
    ):
        np.testing.assert_array_equal(remote.frames, batch.frames)
        np.testing.assert_array_equal(remote.fine, batch.fine)
    assert verify_store(there.store_place(), LocalComm())["frames"] == FRAMES
    assert ingest(there, LocalComm())["status"] == "nothing to do"
    with pytest.raises(ConfigError, match=r"made from other input or settings .*ladder"):
        ingest(campaign(f"{bucket}/a/frames.zarr", ("fg", "ca", "ucg:5")), LocalComm())


def test_backmapping_starts_from_a_url(stored, tmp_path):
    there, _ = stored
    ladder = open_store(there.store_place()).system("s").ladder
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, rounds=1), [ladder], seed=0)
    save_artifact(stage, tmp_path / "artifact", {})
    settings = there.model_dump() | {
        "stages": {
            "ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(tmp_path / "artifact")}
        },
        "backmap": {"members": 1, "frames": "0:4", "input": there.store_place()},
        "workdir": str(tmp_path / "work"),
    }
    made = Campaign.model_validate(settings)
    backmap(made, LocalComm())
    found = open_store(made.path("backmapped.zarr")).system("s").read("fg", 0, 4)
    expected = open_store(there.store_place()).system("s").read("ca", 0, 4)
    np.testing.assert_allclose(ladder.coarsen(found)["ca"], expected, rtol=0, atol=1e-5)


def test_an_interrupted_ingest_continues(bucket, campaign, local, monkeypatch, caplog):
    """Shards that are there are not written again, unless they are not what was written."""
    made = campaign(f"{bucket}/e/frames.zarr")
    write, written = ShardedArrays.write, []

    def dies(self, path, shard, values):
        if shard == 2:
            raise KeyboardInterrupt
        write(self, path, shard, values)

    def counted(self, path, shard, values):
        written.append((path.split("/")[3], shard))
        write(self, path, shard, values)

    with monkeypatch.context() as patch:
        patch.setattr(ShardedArrays, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            ingest(made, LocalComm())
    with pytest.raises(InputError, match="unfinished"):
        open_store(made.store_place())
    other = made.model_copy(update={"store": made.store.model_copy(update={"quantise": True})})
    with pytest.raises(ConfigError, match="unfinished store of other input"):
        ingest(other, LocalComm())
    damaged = f"{bucket}/e/frames.zarr/systems/s/particles/ca/position/value/c/1/0/0"
    fsspec.open(damaged, "wb").open().close()
    monkeypatch.setattr(ShardedArrays, "write", counted)
    with caplog.at_level(logging.INFO):
        summary = ingest(made, LocalComm())
    assert "continuing" in caplog.text
    assert "shard.s.1: damaged" in caplog.text
    assert summary["frames_out"] == FRAMES
    assert ("fg", 1) in written
    assert ("fg", 2) in written
    assert ("fg", 0) not in written
    there, here = (open_store(each.store_place()).system("s") for each in (made, local[0]))
    for level in ("fg", "ca"):
        np.testing.assert_array_equal(there.read(level, 0, FRAMES), here.read(level, 0, FRAMES))
    assert not fsspec.filesystem("s3").exists(f"{made.store_place()}/.written")


def test_commands_take_urls(bucket, stored, tmp_path, capsys):
    place = stored[0].store_place()
    top = tmp_path / "top.pdb"
    judged = ["evaluate", "--truth", place, "--generated", place, "--json"]
    for arguments in (["inspect", place, "--json"], ["verify", place, "--json"], judged):
        assert json.loads(spoken(arguments, capsys))
    export = ["export", f"{place}/", "-o", str(top), "--stop", "1"]
    assert "1 frames in" in spoken(export, capsys)
    assert mdtraj.load(str(top)).n_frames == 1
    for missing in (f"{bucket}/nothing", "s3://no-such-bucket/frames.zarr"):
        with pytest.raises(SystemExit) as ended:
            main(["inspect", missing])
        assert ended.value.code == 3
        assert f"{missing}: no such frame store" in capsys.readouterr().err


def test_no_access_is_one_line(bucket, campaign, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for work in (open_store, lambda place: ingest(campaign(place), LocalComm())):
        with pytest.raises(ResourceError, match=r"no access .*locate credentials"):
            work(f"{bucket}/g/frames.zarr")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def spoken(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_what_is_lost_or_unfinished_is_noticed(bucket, campaign):
    s3fs = pytest.importorskip("s3fs")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    made = campaign(f"{bucket}/b/frames.zarr")
    ingest(made, LocalComm())
    files.rm("frames/b/frames.zarr/systems/s/particles/fg/position/value/c/1/0/0")
    system = open_store(made.store_place()).system("s")
    size = system.shard_frames
    assert np.isfinite(system.read("fg", 0, size)).all()
    with pytest.raises(InputError, match=r"shard 1 of .*fg.* is missing"):
        system.read("fg", size, size + 1)
    open_store(made.store_place(), incomplete_ok=True)._root.attrs["complete"] = False
    with pytest.raises(InputError, match="unfinished"):
        open_store(made.store_place())
    assert ingest(made, LocalComm())["status"] == "written"
    assert np.isfinite(open_store(made.store_place()).system("s").read("fg", 0, FRAMES)).all()
    with pytest.raises(InputError, match="no such frame store"):
        open_store(f"{bucket}/nothing")
    with files.open("frames/c/notes.txt", "w") as file:
        file.write("mine")
    with pytest.raises(InputError, match="not a frame store"):
        ingest(campaign(f"{bucket}/c"), LocalComm())
    assert files.exists("frames/c/notes.txt")
    with pytest.raises(ConfigError, match="nothing here serves nowhere:// URLs"):
        ingest(campaign("nowhere://x"), LocalComm())
