"""How the work of a request for files is cut."""

from hpcbackmap.backmapping import implied_campaign as implied


def test_memory_is_bounded_whatever_is_asked_for():
    """Atoms of a shard, which a rank holds until it writes, by frames, residues and members."""
    for frames, residues, members in (
        (100, 20, 1),
        (10**6, 20, 1),
        (200, 5000, 1),
        (50, 20, 1000),
        (10**5, 300, 50),
    ):
        batch = implied._batch(residues, members, "cpu")
        shard = implied._shard(frames, residues * members, batch, relax=False)
        assert shard % batch == 0
        held = implied.ATOM_BYTES * shard * residues * members
        assert held <= 1.5 * max(implied.SHARD_BYTES, implied.ATOM_BYTES * residues * members)
