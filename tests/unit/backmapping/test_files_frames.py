"""`backmap FILE`: frames that cannot be made are named, and what is done of them."""

import re
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest
from calpha_file import backmap, calpha_of

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.representations.coarsen import coarse_grained
from hpcbackmap.runtime.errors import (
    ConfigError,
    InputError,
)

FRAMES = 7


@pytest.fixture
def damaged(truth, tmp_path):
    """Seven frames: 0 is a straight line at a slant, 2 has a bond of 0.515 nm, 4 is not a number."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    slant = np.array([2.0, 1.0, -2.0]) / 3
    calpha.xyz[0] = 0.38 * np.arange(20)[:, None] * slant
    step = calpha.xyz[2, 8] - calpha.xyz[2, 7]
    calpha.xyz[2, 8:] += step * (0.515 / np.linalg.norm(step) - 1)
    calpha.xyz[4, 3] = np.nan
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    return tmp_path / "in.dcd", tmp_path / "in.pdb"


def test_bad_frames_are_left_out_and_named(damaged, truth, artifact, tmp_path):
    """Frame 0 does not decide where the chain breaks, and what is measured is said."""
    result = backmap(damaged[0], tmp_path / "out.dcd", damaged[1], 2, artifact=artifact)
    assert [item["frame"] for item in result["quarantined"]] == [0, 2, 4]
    straight, long, nan = (item["reason"] for item in result["quarantined"])
    assert "A:ASN1, A:LEU2 and A:TYR3 lie on one line" in straight
    assert re.search(r"A:\w+8 and A:\w+9 are bonded but 0.515 nm apart, not 0.25 to 0.5", long)
    assert nan == "input is not finite"
    good = [1, 3, 5, 6]
    for path in result["output"]:
        made = mdtraj.load(path, top=result["topology"])
        np.testing.assert_allclose(calpha_of(made), calpha_of(truth)[good], atol=2e-5)
    assert result["structures"] == 8
    assert result["peptide_bonds"] == 8 * 19
    again = backmap(damaged[0], tmp_path / "mode.dcd", damaged[1], None, artifact=artifact)
    assert again["structures"] == 4


def test_a_bad_frame_stops_the_run_or_is_repaired_where_asked(damaged, artifact, tmp_path):
    with pytest.raises(InputError, match=r"in.dcd: frame 0: .* --on-bad-frame skip, .* repair"):
        backmap(damaged[0], tmp_path / "s.pdb", damaged[1], artifact=artifact, on_bad_frame="stop")
    assert not (tmp_path / "s.pdb").exists()
    result = backmap(
        damaged[0], tmp_path / "r.dcd", damaged[1], artifact=artifact, on_bad_frame="repair"
    )
    assert [item["frame"] for item in result["quarantined"]] == [4]
    assert result["closed_frames"] == 2
    assert 0.05 < result["closed_displacement_angstrom"]["most"] < 2
    made = mdtraj.load(result["output"][0], top=result["topology"])
    steps = np.linalg.norm(np.diff(calpha_of(made)[:2], axis=1), axis=-1)
    assert made.n_frames == 6
    assert (abs(steps - 0.38) < 0.01)[0].all()


def test_a_repaired_frame_has_side_chains_by_its_own_beads(truth, artifact, tmp_path):
    """Beads of another frame would pull them aside."""
    topology, index, _ = topology_from_mdtraj(truth.topology, truth.xyz[0], "truth")
    protein = SimpleNamespace(topology=topology, positions=truth.xyz[:3, index].copy())
    protein.positions[1] += 3.0
    names, residue, beads = coarse_grained("ca+sc", topology, protein.positions)
    calphas = np.flatnonzero(np.array(names) == "CA")
    apart = beads[1, calphas[1]] - beads[1, calphas[0]]
    beads[1, residue == 0] -= 0.4 * apart
    top = mdtraj.Topology()
    chain = top.add_chain("A")
    rows = [top.add_residue(name, chain, i + 1) for i, name in enumerate(topology.sequence)]
    for name, owner in zip(names, residue, strict=True):
        top.add_atom(name, mdtraj.element.virtual, rows[owner])
    beads = mdtraj.Trajectory(beads, top)
    beads[0].save_pdb(str(tmp_path / "in.pdb"))
    beads.save_dcd(str(tmp_path / "in.dcd"))
    result = backmap(
        tmp_path / "in.dcd", tmp_path / "r.pdb", tmp_path / "in.pdb", artifact=artifact,
        on_bad_frame="repair",
    )  # fmt: skip
    assert (result["representation"], result["quarantined"]) == ("ca+sc", [])
    made = mdtraj.load(result["output"][0])
    _, order, _ = topology_from_mdtraj(made.topology, made.xyz[0], "made")
    off = np.linalg.norm(made.xyz[:, order] - protein.positions, axis=-1).mean(1)
    assert off[1] < 2 * off[0]


def test_a_trace_that_repair_cannot_close_is_left_out(truth, artifact, tmp_path):
    """A frame ten times too large: its links come out too long, with residues of the other hand."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))[:3]
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    calpha.xyz[1] *= 10
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    result = backmap(
        tmp_path / "in.dcd", tmp_path / "r.dcd", tmp_path / "in.pdb", artifact=artifact,
        on_bad_frame="repair",
    )  # fmt: skip
    for item in result["quarantined"]:
        assert "not to be repaired: when closed, the C-alpha atoms of" in item["reason"]
    assert result["distorted_peptide_bonds"] == 0


def test_frames_of_atoms_are_not_moved_though_one_of_them_scatters(truth, artifact, tmp_path):
    """The bonds of one frame are few; those of all frames say that nothing here is a spring."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    steps = np.diff(calpha.xyz[3], axis=0)
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    wide = length + np.where(np.arange(19)[:, None] % 2, 0.013, -0.013)
    calpha.xyz[3, 1:] = calpha.xyz[3, 0] + np.cumsum(steps / length * wide, axis=0)
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    result = backmap(
        tmp_path / "in.dcd", tmp_path / "o.dcd", tmp_path / "in.pdb", artifact=artifact
    )
    made = mdtraj.load(result["output"][0], top=result["topology"])
    assert result["closed_frames"] == 0
    np.testing.assert_allclose(calpha_of(made), calpha.xyz, atol=2e-5)


def test_without_a_good_frame_there_is_no_output(truth, artifact, tmp_path):
    calpha = truth[:2].atom_slice(truth.topology.select("name CA"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    between = (calpha.xyz[:, 17] + calpha.xyz[:, 19]) / 2
    for place, message in (
        (between, "none of its 2 frames could be backmapped"),
        (np.nan, "no frame of 2 .* CA of A:PRO19 has them in 0"),
    ):
        calpha.xyz[:, 18] = place
        calpha.save_dcd(str(tmp_path / "in.dcd"))
        with pytest.raises(InputError, match=message):
            backmap(tmp_path / "in.dcd", tmp_path / "o.pdb", tmp_path / "in.pdb", artifact=artifact)


def test_a_trace_that_fluctuates_is_closed_and_told(truth, artifact, tmp_path):
    """As models of one bead per residue have it: bonds of 3.8 +- 0.18 Angstrom; no cis bond comes of it."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha[0].save_pdb(str(tmp_path / "in.pdb"))
    steps = np.diff(calpha.xyz, axis=1)
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    drawn = np.random.default_rng(0).normal(0.38, 0.018, length.shape)
    calpha.xyz[:, 1:] = calpha.xyz[:, :1] + np.cumsum(steps / length * drawn, axis=1)
    calpha.save_dcd(str(tmp_path / "in.dcd"))
    result = backmap(
        tmp_path / "in.dcd", tmp_path / "o.dcd", tmp_path / "in.pdb", artifact=artifact
    )
    assert result["closed_frames"] == FRAMES
    assert 0.05 < result["closed_displacement_angstrom"]["mean"] < 0.3
    assert result["cis_elsewhere"] == result["cis_before_proline"] == 0
    assert result["distorted_peptide_bonds"] == 0


def test_chosen_frames_are_those_of_the_whole_run(trace, artifact, tmp_path):
    whole = backmap(trace[0], tmp_path / "w.dcd", trace[1], artifact=artifact)
    some = backmap(trace[0], tmp_path / "s.dcd", trace[1], artifact=artifact, frames="1:-1:2")
    one, other = (
        mdtraj.load(each["output"][0], top=each["topology"]).xyz for each in (some, whole)
    )
    assert some["frames"] == 3
    np.testing.assert_allclose(one, other[[1, 3, 5]], atol=2e-4)
    with pytest.raises(ConfigError, match="leaves none of 7 frames"):
        backmap(trace[0], tmp_path / "n.dcd", trace[1], artifact=artifact, frames="9:")
