"""States of trainings hold numbers and words: what was kept comes back, and nothing in a file is run."""

import pickle
from collections import OrderedDict

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.training.checkpoints.state_files import read_state, without_pickles, write_state

FLAT = torch.arange(12, dtype=torch.float32)
STATE = {
    "module": OrderedDict(a=FLAT[:4].view(2, 2), b=FLAT[4:], c=torch.zeros(0), d=torch.tensor(3)),
    "halves": [torch.ones(3, dtype=torch.bfloat16), torch.ones(3, 4).t()],
    "state": {0: {"step": torch.tensor(7.0)}, 1: {"step": 7, "lr": float("inf")}},
    "shapes": [OrderedDict(w=torch.Size([3, 4])), (1, 2.5, None, True, "x")],
    "zero_stage": ZeroStageEnum(2),
    "loss_scaler": LossScaler(1.0),
    "slices": [OrderedDict(w=fragment_address(numel=12, start=3))],
    "dtype": torch.float32,
}


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, LossScaler | fragment_address):
        assert vars(found) == vars(expected)
    else:
        assert found == expected


def test_a_state_comes_back_as_it_was(tmp_path):
    write_state(STATE, tmp_path / "s.pt")
    assert_same(read_state(tmp_path / "s.pt"), STATE)


def test_inside_deepspeed_torch_writes_and_reads_the_same(tmp_path):
    """And outside again pickles, as before."""
    with without_pickles():
        torch.save(STATE, tmp_path / "s.pt")
        assert_same(torch.load(tmp_path / "s.pt", map_location="cpu", weights_only=False), STATE)
    assert (tmp_path / "s.pt").read_bytes()[8:9] == b"{"
    torch.save({}, tmp_path / "t.pt")
    assert (tmp_path / "t.pt").read_bytes()[:2] == b"PK"


@pytest.mark.parametrize("new", [True, False])
def test_states_of_format_1_are_read(tmp_path, new):
    if b"getattr" in pickle.dumps(ZeroStageEnum(1)):  # until Python 3.11.3
        pytest.skip("this Python pickles enumerations as a call of getattr, which is refused")
    state = {key: value for key, value in STATE.items() if key != "dtype"}
    torch.save(state, tmp_path / "s.pt", _use_new_zipfile_serialization=new)
    assert_same(read_state(tmp_path / "s.pt"), state)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("how", ["zip", "old", "plain"])
def test_a_pickle_that_runs_something_is_refused_and_does_not_run(tmp_path, how):
    path, mark = tmp_path / "s.pt", tmp_path / "executed"
    state = {"module": {"a": FLAT}, "more": Evil(mark)}
    if how == "plain":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError, match=r"s\.pt"):
        read_state(path)
    assert not mark.exists()


def test_classes_that_are_not_known_are_neither_written_nor_made(tmp_path):
    with pytest.raises(TypeError, match="does not know"):
        write_state({"a": tmp_path}, tmp_path / "s.pt")
    write_state({"a": fragment_address(1, 2)}, tmp_path / "s.pt")
    data = (tmp_path / "s.pt").read_bytes()
    (tmp_path / "s.pt").write_bytes(data.replace(b"fragment_address", b"subprocess_Popen"))
    with pytest.raises(InputError, match="no state of a training"):
        read_state(tmp_path / "s.pt")


@pytest.mark.parametrize("data", [b"", b"x", b"{}" * 20, b"\x10" + bytes(7) + b"{" + b"x" * 40])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "s.pt").write_bytes(data)
    with pytest.raises(InputError, match=r"s\.pt"):
        read_state(tmp_path / "s.pt")
