"""What differs between two records."""

from hpcbackmap.runtime.differences import first_difference


def test_the_first_leaf_is_named_with_its_place():
    before = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    assert first_difference(before, before) is None
    assert first_difference(before, {"a": 1, "b": {"c": [1, 3], "d": "y"}}) == (
        "b.c was [1, 2], is [1, 3]"
    )


def test_keys_of_one_side_count_and_some_are_not_looked_at():
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b was None, is 2"
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == "b was 2, is None"
    assert first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, ("b.c",)) is None


def test_long_values_are_cut():
    assert len(first_difference({"a": "x" * 1000}, {"a": 1})) < 60
