"""What a user may ask of whole structures."""

from pathlib import Path

import pytest

from hpcbackmap.finishing.options import require_disulphides, require_names, require_ph
from hpcbackmap.runtime.errors import ConfigError


@pytest.mark.parametrize("text", [None, "auto", "none", "A:5-A:55", "5-55, A:14B-B:38", "-3-4"])
def test_disulphides_as_they_may_be_written(text):
    require_disulphides(text)


@pytest.mark.parametrize("text", ["", "A:5", "A:5-", "A:5-A:55,", "A:x-A:5", "all"])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(ConfigError, match="no pair"):
        require_disulphides(text)


@pytest.mark.parametrize("ph", [-0.1, 14.1, float("nan")])
def test_what_is_no_ph_is_refused(ph):
    with pytest.raises(ConfigError, match="from 0 to 14"):
        require_ph(ph, "--ph")


def test_names_need_hydrogens_and_a_file_that_holds_names():
    require_names("pdb", False, None)
    require_names("amber", True, Path("x.pdb"))
    for names, hydrogens, output in (
        ("opls", True, None), ("amber", False, None), ("amber", True, Path("x.zarr")),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="--names"):
            require_names(names, hydrogens, output)
