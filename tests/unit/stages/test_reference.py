"""A known structure carried onto beads: exact beads, bodies, gaps, and a fold that is another one."""

import numpy as np
import pytest
import torch

from hpcbackmap.protein.topology import Topology, topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.elastic import Elastic
from hpcbackmap.stages.trace.guided import Guided
from hpcbackmap.stages.trace.reference import Reference

SEQUENCE = "ADEKLAEEIKRALEAGNPDSEALKKVLEWARRLGSGNPEDLARQLAEEIKRGG"
BEADS = 9


def helix(residues: int) -> np.ndarray:
    turn = np.deg2rad(100) * np.arange(residues)
    return np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(residues)], axis=1)


def turned(points: np.ndarray, degrees: float, about: np.ndarray) -> np.ndarray:
    """About an axis along x through a point."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (points - about) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) + about


def hairpin(degrees: float) -> np.ndarray:
    """Two helices side by side, joined by a link, the second turned about the joint."""
    first = helix(26)
    second = helix(27)[::-1] * [1, 1, 1] + [1.2, 0, 0]
    second += [0, 0, first[-1, 2] - second[0, 2]]
    return np.concatenate([first, turned(second, degrees, second[0])])


def ladder_of(topology: Topology) -> Ladder:
    bead = np.arange(topology.n_residues) * BEADS // topology.n_residues
    return build_ladder(topology, ["fg", "ca", f"ucg:{','.join(map(str, np.bincount(bead)))}"])


def elastic_of(reference: np.ndarray) -> tuple[Elastic, np.ndarray]:
    n = len(reference)
    bead = np.arange(n) * BEADS // n
    zeros = np.zeros(n, dtype=np.int64)
    return Elastic(reference, zeros, zeros, bead, 1 / np.bincount(bead)[bead]), bead


def carry(reference: np.ndarray, truth: np.ndarray, answer: np.ndarray):
    elastic, _ = elastic_of(reference)
    return elastic.carry(elastic.mapping @ truth, answer, np.full(len(truth), 0.3))


def rmsd(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a - b).sum(-1).mean()))


def test_beads_of_the_reference_give_it_back_wherever_it_lies():
    truth = hairpin(0)
    away = turned(truth, 130, np.ones(3)) + [3.0, -1.0, 2.0]
    found = carry(away, truth, truth + 0.3)
    assert rmsd(found.positions, truth) < 0.01, "nm"
    assert found.kept == 1


def test_domains_move_as_bodies_and_beads_are_exact():
    truth, reference = hairpin(40), hairpin(0)
    elastic, bead = elastic_of(reference)
    beads = elastic.mapping @ truth
    found = elastic.carry(beads, beads[bead], np.full(len(truth), 0.4))
    assert np.abs(elastic.mapping @ found.positions - beads).max() < 1e-9, "nm"
    assert rmsd(found.positions, truth) < 0.2, "nm; as one body it is 0.53"
    assert found.fits
    white = np.random.default_rng(0).normal(size=truth.shape)
    member = found.member(white, np.zeros_like(white))
    assert np.abs(elastic.mapping @ member - beads).max() < 1e-9, "nm"
    assert np.isclose(rmsd(member, found.positions), found.error)


def test_residues_that_the_reference_lacks_are_those_of_the_stage():
    truth = hairpin(0)
    reference = truth.copy()
    reference[10:18] = np.nan
    answer = truth + [0.0, 0.0, 0.02]
    found = carry(reference, truth, answer)
    assert rmsd(found.positions[10:18], answer[10:18]) < 0.05, "nm"
    assert rmsd(found.positions, truth) < 0.05, "nm"


def test_another_fold_is_noticed():
    truth = hairpin(0)
    compact = truth.copy()
    compact[26:] = hairpin(180)[26:]
    wrong = np.cumsum(0.27 * np.random.default_rng(3).normal(size=truth.shape), axis=0)
    assert carry(truth, compact, compact).fits, "a domain that has turned about is the same fold"
    assert not carry(0.35 * wrong, truth, truth).fits


@pytest.mark.trains
def test_a_guided_stage_with_a_wrong_reference_answers_as_without_one():
    topology = topology_from_sequence([SEQUENCE])
    ladder, truth = ladder_of(topology), hairpin(20)
    plain = load_artifact(shipped_artifact("ucg-ca", "trace")).at_rung(
        f"{ladder.resolutions[-1]}-ca"
    )
    coarse = torch.from_numpy(np.stack([ladder.mappings[-1].apply(truth)] * 3)).float()
    noises = [
        torch.from_numpy(frame_noise(1, "x", [0, 1, 2], k, BEADS, plain.noise_width))
        for k in (0, 1)
    ]
    right = Guided(plain, Reference("right.pdb", "a", topology, hairpin(0)))
    scrambled = 0.1 * np.cumsum(np.random.default_rng(3).normal(size=truth.shape), axis=0)
    wrong = Guided(plain, Reference("wrong.pdb", "b", topology, scrambled))
    with torch.no_grad():
        without = plain.samples(coarse, collate([plain.describe(ladder)]), noises)
        system = collate([wrong.describe(ladder)])
        found = wrong.draw(coarse, system, noises)
        for a, b in zip(found.structures, without, strict=True):
            assert torch.equal(a, b)
        assert found.set_aside.all()
        system = collate([right.describe(ladder)])
        found = right.draw(coarse, system, noises)
        members = torch.stack(found.structures).double().numpy()
        assert right.uncertainty(coarse, system).max() < plain.uncertainty(coarse, system).mean()
        alone = right.samples(coarse, system, noises[1:])[0].double().numpy()
    assert not found.set_aside.any()
    assert np.array_equal(alone, members[1]), "members do not depend on those drawn beside them"
    assert np.abs(members[0] - members[1]).max() > 0.02, "nm"
    for each in members.reshape(-1, *truth.shape):
        assert np.abs(ladder.mappings[-1].apply(each) - coarse[0].numpy()).max() < 1e-5, "nm"
    error = rmsd(members[:, 0].mean(0), truth)
    assert error < 0.7 * rmsd(without[0][0].double().numpy(), truth)


def test_a_reference_lies_on_its_chains_and_says_what_differs():
    other = SEQUENCE[4:30].replace("W", "A") + SEQUENCE[36:]
    reference = Reference("r.pdb", "a", topology_from_sequence([other]), np.zeros((len(other), 3)))
    placed = reference.placed(topology_from_sequence([SEQUENCE, "GGGGSGGGGSGGGG", SEQUENCE]))
    n = len(SEQUENCE)
    there = np.isfinite(placed.calpha).all(1)
    lacks = [*range(4), *range(30, 36)]
    assert np.flatnonzero(~there[:n]).tolist() == lacks
    assert np.flatnonzero(~there[-n:]).tolist() == lacks
    assert placed.group[:n].tolist() == [0] * n
    assert placed.group[-n:].tolist() == [1] * n, "a second copy has no place beside the first"
    assert "1 other" in placed.words[0] or "10 missing" in placed.words[0]
    assert "not in the reference" in placed.words[1]
    with pytest.raises(InputError, match=r"r.pdb: no reference of this protein: \d+ % .* 70 %"):
        reference.placed(topology_from_sequence(["GGGGSGGGGSGGGGWWYYC"]))
