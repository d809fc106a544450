"""A checkpoint that DeepSpeed cannot convert for another number of ranks."""

import importlib

import pytest

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.training.checkpoints.reshape import reshaped
from hpcbackmap.training.ranks.world import World

pytestmark = pytest.mark.trains


def test_what_cannot_be_converted_is_told_in_one_line(tmp_path, capfd):
    """What the converter itself says on the way is not."""
    importlib.import_module("deepspeed.checkpoint")
    capfd.readouterr()
    (tmp_path / "step_3").mkdir()
    world = World(0, 1, 0, "single process")
    told = r"step_3: cannot be converted for another number of ranks \(.+\); continue on as many as before"
    with pytest.raises(InputError, match=told), reshaped(tmp_path, "step_3", world):
        pass
    assert capfd.readouterr() == ("", "")
