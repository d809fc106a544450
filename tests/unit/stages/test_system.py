"""Descriptions of molecules: declared, complete, and shifted where several become one."""

import numpy as np
import pytest
import torch

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.genzprot.system import residue_system
from hpcbackmap.stages.layers.bead_system import bead_system
from hpcbackmap.stages.layers.on_host import HostNumber, places
from hpcbackmap.stages.system import Beads, Listed, Particles, Plain, Summed, System, collate
from hpcbackmap.stages.trace.system import trace_system

LADDERS = [
    build_ladder(topology_from_sequence([sequence]), ["fg", "ca", "ucg:/3"])
    for sequence in ("ACDEFGHIKLMN", "GGPWGAWK", "PQRSTVWYACD")
]
KINDS = {
    "beads": lambda ladder: bead_system(ladder, "ca", "ucgr3"),
    "trace": lambda ladder: trace_system(ladder, "ca", "ucgr3"),
    "residues": lambda ladder: residue_system(ladder, "ca"),
}


class Pair(System):
    """A bond between fine particles, a bead, a number of its own; on the host a size and a count."""

    bond: Particles
    anchor: Beads
    charge: Plain
    lengths: Listed
    rings: Summed


def pair(charge: float) -> Pair:
    return Pair.of_molecule(
        3, 2, bead_of=np.array([0, 0, 1]), bond=np.array([[0, 1], [1, 2]]), anchor=np.array([1]),
        charge=np.array([charge]), lengths=(3,), rings=(1, 2),
    )  # fmt: skip


def test_every_field_is_shifted_as_declared():
    three = collate([pair(0.5), pair(1.5), pair(2.5)])
    assert type(three) is Pair
    assert three.bond.tolist() == [[0, 1], [1, 2], [3, 4], [4, 5], [6, 7], [7, 8]]
    assert three.anchor.tolist() == [1, 3, 5]
    assert three.charge.tolist() == [0.5, 1.5, 2.5]
    assert three.bead_of.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert three.fine_system.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert three.coarse_system.tolist() == [0, 0, 1, 1, 2, 2]
    assert three.first_bead.tolist() == [0, 2, 4]
    assert three.n_beads.tolist() == [2, 2, 2]
    assert (three.lengths, three.rings) == ((3, 3, 3), (3, 6))
    assert (three.fine_sizes, three.coarse_sizes) == ((3, 3, 3), (2, 2, 2))
    assert (three.n_fine, three.n_coarse, three.n_systems) == (9, 6, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_put_together_in_two_ways_is_the_same(kind):
    one, two, three = map(KINDS[kind], LADDERS)
    whole, nested = collate([one, two, three]), collate([collate([one, two]), three])
    for key in type(whole).fields:
        first, second = getattr(whole, key), getattr(nested, key)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    alone = collate([two])
    for key in type(two).fields:
        first, second = getattr(two, key), getattr(alone, key)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("kind", KINDS)
def test_indices_stay_inside_their_molecule(kind):
    """Whatever counts particles or beads points into the molecule that it is of."""
    systems = list(map(KINDS[kind], LADDERS))
    whole = collate(systems)
    starts = {"fine particles": [0, *np.cumsum(whole.fine_sizes)]}
    starts["beads"] = [0, *np.cumsum(whole.coarse_sizes)]
    counted = {key: how.value for key, how in type(whole).fields.items() if how.value in starts}
    assert len(counted) >= 5
    for key, what in counted.items():
        row = 0
        for number, system in enumerate(systems):
            values = getattr(whole, key)[row : (row := row + len(getattr(system, key)))]
            if values.numel():
                assert starts[what][number] <= int(values.min())
                assert int(values.max()) < starts[what][number + 1]


def test_a_field_that_is_not_declared_is_an_error():
    system = pair(0.0)
    with pytest.raises(TypeError, match=r"Pair\.extra_index is not declared: say what it counts"):
        system.extra_index = torch.zeros(3)
    with pytest.raises(TypeError, match=r"Pair\.extra is not declared"):
        system["extra"] = torch.zeros(3)
    system.__dict__["smuggled"] = torch.zeros(3)
    with pytest.raises(TypeError, match=r"Pair\.smuggled is not declared"):
        collate([pair(1.0), system])
    with pytest.raises(TypeError, match=r"Pair\.wrong is not declared"):
        Pair.of_molecule(3, 2, wrong=np.zeros(1))


def test_a_field_that_is_missing_is_an_error():
    with pytest.raises(TypeError, match="Pair lacks anchor, bead_of, bond, charge, lengths, rings"):
        Pair.of_molecule(3, 2)


def test_numbers_on_the_host_are_those_of_the_masks():
    """What `places` takes on trust."""
    whole = collate([residue_system(ladder, "ca") for ladder in LADDERS])
    assert whole.torsions == tuple(whole.torsion_mask.sum(0).tolist())
    movable = whole.torsion_mask & ~whole.proline.unsqueeze(-1)
    assert whole.moving == tuple(movable.sum(0).tolist())
    assert whole.rings == (int((whole.role == Role.RING).sum()),) == (2,)
    assert whole.levels == tuple(torch.bincount(whole.level[whole.backbone]).tolist())


def test_places_are_those_of_nonzero():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    for one in (mask, mask[0], mask[:1].expand(3, -1), torch.zeros(0, 4, dtype=torch.bool)):
        expected = torch.nonzero(one, as_tuple=True)
        found = places(one, int(one.sum()))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_numbers_of_the_host_stay_there():
    moved = collate([pair(0.0)]).to("meta")
    assert moved.bond.device.type == "meta"
    assert moved.fine_sizes == (3,)
    assert moved.rings == (1, 2)


def test_a_number_is_read_again_once_its_buffer_has_changed():
    module = torch.nn.BatchNorm1d(1)
    number = HostNumber()
    assert number(module.running_var) == number(module.running_var) == 1.0
    module.running_var.fill_(2.0)
    assert number(module.running_var) == 2.0
    module.load_state_dict(module.state_dict() | {"running_var": torch.tensor([3.0])})
    assert number(module.running_var) == 3.0
    module.double()
    assert number(module.running_var) == 3.0
