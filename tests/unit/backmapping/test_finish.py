"""The finish of a campaign: hydrogens in its store, the same bits after a shard was lost."""

import mdtraj
import numpy as np
import pytest

from hpcbackmap.backmapping import driver
from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError, OutputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.expected_error import expected_error
from hpcbackmap.store.export import export
from hpcbackmap.store.store import open_store
from hpcbackmap.store.verify import verify_store


@pytest.fixture
def campaign(example_run, tmp_path):
    """Four frames of a small protein, two members, two shards."""
    calpha = example_run[:4]
    calpha.atom_slice(calpha.topology.select("name CA")).save_pdb(str(tmp_path / "ca.pdb"))
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    artifact = save_artifact(stage, tmp_path / "ca-fg", {})
    settings = {
        "input": str(tmp_path / "frames.zarr"),
        "members": 2,
        "batch_frames": 1,
        "shard_frames": 2,
        "hydrogens": True,
    }
    made = Campaign(
        name="t",
        workdir=str(tmp_path),
        ladder=["fg", "ca"],
        systems=[{"name": "s", "trajectories": [str(tmp_path / "ca.pdb")]}],
        stages={"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(artifact)}},
        backmap=settings,
    )
    ingest(made, LocalComm())
    return made


@pytest.mark.trains
def test_hydrogens_of_a_campaign(campaign, tmp_path):
    assert driver.backmap(campaign, LocalComm())["shards_missing"] == 0
    output = tmp_path / "backmapped.zarr"
    made = open_store(output).system("s").read("hydrogens", 0, 8)
    assert np.isfinite(made).all()
    assert made.shape[1] > 130
    assert export(open_store(output), "fg", tmp_path / "all.xtc") == 8
    written = mdtraj.load(str(tmp_path / "all.xtc"), top=str(tmp_path / "all_top.pdb"))
    assert written.n_atoms == made.shape[1] + open_store(output).system("s").n_particles("fg")
    with pytest.raises(ConfigError, match="export fg"):
        export(open_store(output), "hydrogens", tmp_path / "h.xtc")

    (record,) = (output / ".shards").glob("s.00000001.json")
    record.unlink()
    driver.backmap(campaign, LocalComm())
    assert np.array_equal(open_store(output).system("s").read("hydrogens", 0, 8), made)
    with pytest.raises(OutputError, match=r"finish\.ph was 7\.0, is 5\.0"):
        driver.backmap(changed(campaign, ph=5.0), LocalComm())


@pytest.mark.trains
def test_a_campaign_says_what_its_structures_are_and_how_sure_it_is(campaign, tmp_path, caplog):
    told = driver.backmap(campaign, LocalComm())
    output = tmp_path / "backmapped.zarr"
    store = open_store(output)
    system = store.system("s")
    assert told["hydrogens"] == system.n_particles("hydrogens")
    assert told["ph"] == 7.0
    assert told["peptide_bonds"] == 19 * 8
    assert {"clashes_per_100_residues", "ramachandran_outliers_percent"} <= set(told)
    assert store.attributes["structures"]["hydrogens"] == told["hydrogens"]
    errors = system.read_of_residues("expected_error", 0, 8)
    assert errors.shape == (8, 20)
    expected = expected_error(system.ladder, system.read("fg", 0, 8), "ca", mode=False)
    np.testing.assert_allclose(errors, expected, rtol=1e-3)
    assert told["expected_error_angstrom"] == pytest.approx(10 * expected.mean(), abs=0.002)
    export(store, "fg", tmp_path / "all.pdb", start=1, stride=3)
    column = [
        [float(line[60:66]) for line in model.splitlines() if line[12:16] == " CA "]
        for model in (tmp_path / "all.pdb").read_text().split("MODEL")[1:]
    ]
    np.testing.assert_allclose(column, 10 * errors[1::3], atol=0.006)

    verified = verify_store(output, LocalComm())
    (file,) = output.glob("systems/s/residues/expected_error/value/c/1/0")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(InputError, match="residues/expected_error"):
        verify_store(output, LocalComm())
    driver.backmap(campaign, LocalComm())
    assert "damaged and will be computed again" in caplog.text
    assert verify_store(output, LocalComm())["content"] == verified["content"]


def changed(campaign, **settings):
    return campaign.model_copy(update={"backmap": campaign.backmap.model_copy(update=settings)})


@pytest.mark.trains
def test_a_relaxed_campaign_is_the_same_after_a_shard_was_lost(campaign, tmp_path):
    pytest.importorskip("openmm", reason="needs OpenMM")
    relaxed = changed(campaign, relax=True, hydrogens=False)
    told = driver.backmap(relaxed, LocalComm())["relaxation"]
    assert told["relaxed"] + told["failed"] == 8
    assert told["relaxed"] > 0
    output = tmp_path / "backmapped.zarr"
    assert "hydrogens" not in open_store(output).resolutions
    made = open_store(output).system("s").read("fg", 0, 8)
    (output / ".shards/s.00000001.json").unlink()
    assert driver.backmap(relaxed, LocalComm())["relaxation"] == told
    assert np.array_equal(open_store(output).system("s").read("fg", 0, 8), made)
