"""Ranks that meet, and those that do not come."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hpcbackmap.runtime.errors import ConfigError, ResourceError
from hpcbackmap.training.ranks.rendezvous import (
    SECONDS_VARIABLE,
    count_gpus,
    meet,
    meeting_point,
    take_gpu,
)
from hpcbackmap.training.ranks.world import World

HOST = "127.0.0.1"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def together(ranks: list[int], size: int, port: int) -> list:
    """What each of the ranks gets: its store, or its error."""

    def come(rank: int):
        try:
            return meet(World(rank, size, rank, "torchrun"), HOST, port, "campaign/ca-fg")
        except ResourceError as error:
            return str(error)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(come, ranks))


def test_ranks_that_are_all_there_share_a_store(port):
    first, second = together([0, 1], 2, port)
    first.set("word", "heard")
    assert second.get("word") == b"heard"


def test_missing_ranks_are_named_to_all_that_came(port, monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "1.5")
    messages = together([0, 2, 4], 5, port)
    assert len(set(messages)) == 1
    assert re.search(
        rf"ranks 1, 3 of 5 did not come to {HOST}:{port} within 1.5 s \(ranks 0, 2, 4 did\)",
        messages[0],
    )


def test_first_rank_missing(port, monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "1")
    (message,) = together([1], 2, port)
    assert f"rank 0 of 2 did not come to {HOST}:{port} within 1 s" in message


def test_rank_that_comes_twice_is_refused(port, monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "2")
    messages = together([0, 1, 1], 3, port)
    assert "rank 2 of 3 did not come" in messages[0]
    assert any("two processes say that they are rank 1 of 3" in each for each in messages[1:])


def test_port_in_use_is_named(port):
    with socket.create_server(("", port)):
        (message,) = together([0], 2, port)
    assert f"port {port} of {socket.gethostname()} is in use" in message
    assert "MASTER_PORT" in message


def test_unknown_host_and_senseless_patience(monkeypatch):
    second = World(1, 2, 1, "torchrun")
    with pytest.raises(ResourceError, match=r"no host is called 'no-such-host\.invalid'"):
        meet(second, "no-such-host.invalid", 29500, "")
    monkeypatch.setenv(SECONDS_VARIABLE, "soon")
    with pytest.raises(ConfigError, match=f"{SECONDS_VARIABLE}=soon: give a number"):
        meet(second, HOST, 29500, "")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[01-04,07],cpu1", "gpu01"),
        ("cpu1,gpu1", "cpu1"),
        ("n[2,5]-ib", "n2-ib"),
        ("login", "login"),
    ],
)
def test_srun_needs_no_address(nodes, host):
    """All ranks of a step choose the same host and port, another step of the job another port."""
    step = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": nodes}
    world = World(1, 4, 1, "Slurm")
    address, port = meeting_point(world, step)
    assert address == host
    assert 20000 <= port < 30000
    assert meeting_point(World(3, 4, 0, "Slurm"), step) == (address, port)
    assert meeting_point(world, step | {"SLURM_STEP_ID": "1"})[1] != port
    assert meeting_point(world, step | {"MASTER_ADDR": "10.0.0.1"}) == ("10.0.0.1", port)


def test_meeting_point_of_the_user_comes_first_and_must_make_sense():
    chosen = {"MASTER_ADDR": "head", "MASTER_PORT": "12345", "SLURM_STEP_NODELIST": "n1"}
    for launcher in ("torchrun", "Open MPI", "PMI", "Slurm"):
        assert meeting_point(World(0, 2, 0, launcher), chosen) == ("head", 12345)
    assert meeting_point(World(0, 2, 0, "Open MPI"), {}) is None
    with pytest.raises(ConfigError, match="MASTER_PORT=http is no port"):
        meeting_point(World(0, 2, 0, "Slurm"), chosen | {"MASTER_PORT": "http"})
    with pytest.raises(ResourceError, match="set MASTER_ADDR and MASTER_PORT"):
        meeting_point(World(0, 2, 0, "torchrun"), {"MASTER_ADDR": "head"})


def test_gpus_that_slurm_gave_and_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"SLURM_GPUS_ON_NODE": "4"}
    with pytest.raises(ResourceError, match=r"Slurm gave 4 GPU\(s\), torch .* sees none"):
        count_gpus(given)
    assert count_gpus(given | {"DS_ACCELERATOR": "cpu"}) == 0
    assert count_gpus({}) == 0


def test_gpu_that_is_not_free(monkeypatch):
    def busy(*_, **__):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "zeros", busy)
    with pytest.raises(ResourceError, match=r"GPU 1 is not free \(CUDA error.*unavailable\)"):
        take_gpu(torch.device("cuda", 1))
