"""What is asked of the C library, whatever it answers."""

from hpcbackmap.runtime.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory


class Library:
    """A malloc that takes thresholds up to ``most``, as glibc before 2.35 does up to 32 MiB."""

    def __init__(self, most):
        self.most, self.set = most, {}

    def mallopt(self, key, value):
        if key == M_MMAP_THRESHOLD and value > self.most:
            return 0
        self.set[key] = value
        return 1


def test_an_older_library_keeps_as_much_as_it_takes():
    for most, kept in ((1 << 40, 1 << 30), (1 << 25, 1 << 25)):
        library = Library(most)
        assert keep_freed_memory(library) == kept
        assert library.set == {M_MMAP_THRESHOLD: kept, M_TRIM_THRESHOLD: kept}


def test_nothing_is_half_done():
    """A trim threshold alone ends the adaptation of the other: every larger block would be mapped anew."""
    library = Library(0)
    assert keep_freed_memory(library) == 0
    assert library.set == {}
    assert keep_freed_memory(object()) == 0
