"""What cannot be done whatever the files hold is refused before anything heavy is loaded."""

import pytest

from hpcbackmap.backmapping.request import Request, check_request
from hpcbackmap.runtime.errors import ConfigError, OutputError


def test_names_that_are_no_printable_line_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"U\+000A has no place in a file name"):
        check_request(Request(output=tmp_path / "a\nb.xtc"), [])


def test_links_that_go_in_circles_are_refused(tmp_path):
    first, second = tmp_path / "a.xtc", tmp_path / "b.xtc"
    first.symlink_to(second)
    second.symlink_to(first)
    with pytest.raises(OutputError, match=r"a\.xtc: no place to write to"):
        check_request(Request(output=first), [])


def test_a_request_without_output_has_no_files_to_check():
    check_request(Request(), [])
    with pytest.raises(ValueError, match="what stays in memory"):
        _ = Request().targets
