"""One protein by heart, and stages that a campaign takes from the package by the word `shipped`."""

import json

import pytest
import torch
import yaml

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.config.load import load_campaign
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.genzprot import drawing
from hpcbackmap.training.init_from import start_from
from tests.unit.stages.test_heavy_atoms import read

SEQUENCE = "ACDEFGHIKLMNPQRSTVWY"
BY_HEART = GenzprotConfig(per_system=True)


def ladder_of(sequence):
    return build_ladder(topology_from_sequence([sequence]), ["fg", "ca"])


def a_trace(residues):
    """A C-alpha helix, float32 [1, R, 3]."""
    k = torch.arange(residues) * 1.745
    return torch.stack([0.23 * k.cos(), 0.23 * k.sin(), 0.15 * k / 1.745], -1).unsqueeze(0)


def drawn(stage, ladder):
    system = collate([stage.describe(ladder)])
    noise = torch.randn(
        1, len(SEQUENCE), stage.noise_width, generator=torch.Generator().manual_seed(0)
    )
    return stage.sample(a_trace(len(SEQUENCE)), system, noise)


def learned(ladder):
    """A stage from the shipped weights whose embedding is no longer zero."""
    stage = build_stage("ca-fg", BY_HEART, [ladder], 0)
    start_from(shipped_artifact(), stage)
    torch.nn.init.normal_(stage.known.weight, generator=torch.Generator().manual_seed(1))
    return stage.eval()


def test_it_begins_as_the_shipped_stage_and_every_residue_can_differ(monkeypatch):
    """But for partners, which it learns itself."""
    ladder = ladder_of(SEQUENCE)
    stage = build_stage("ca-fg", BY_HEART, [ladder], 0)
    start_from(shipped_artifact(), stage)
    shipped = load_artifact(shipped_artifact())
    begun = drawn(stage.eval(), ladder)
    monkeypatch.setattr(drawing, "meet", lambda *_: None)
    assert torch.equal(begun, drawn(shipped, ladder))
    assert not torch.equal(drawn(learned(ladder), ladder), drawn(shipped, ladder))


def test_its_artifact_is_read_again(tmp_path):
    ladder = ladder_of(SEQUENCE)
    stage = learned(ladder)
    again = load_artifact(save_artifact(stage, tmp_path / "artifact", {}))
    assert torch.equal(drawn(stage, ladder), drawn(again, ladder))


def test_weights_by_heart_alone_are_calibrated(data_dir):
    topology, fine = read(data_dir / "nmr" / "1sb0_nmr.pdb.gz", 4)
    ladder = build_ladder(topology, ["fg", "ca"])
    stage = build_stage("ca-fg", BY_HEART, [ladder], 0)
    assert start_from(shipped_artifact(), stage)
    before = {name: weight.clone() for name, weight in stage.state_dict().items()}
    stage.calibrate(
        fine.float(), fine[:, topology.ca_index].float(), collate([stage.describe(ladder)])
    )
    changed = {k for k, weight in stage.state_dict().items() if not torch.equal(weight, before[k])}
    assert changed == {"bias.planes", "bias.chi"}


def test_it_goes_on_with_what_an_artifact_knows_by_heart(tmp_path):
    ladder = ladder_of(SEQUENCE)
    artifact = save_artifact(learned(ladder), tmp_path / "artifact", {})
    assert not start_from(artifact, build_stage("ca-fg", BY_HEART, [ladder], 0))
    many = build_stage("ca-fg", GenzprotConfig(), [ladder], 0)
    assert not start_from(shipped_artifact(), many)


def test_an_artifact_of_before_has_no_bias(tmp_path):
    """Until version 0.7 the settings said nothing of it."""
    ladder = ladder_of(SEQUENCE)
    former = build_stage("ca-fg", GenzprotConfig(per_system=True, torsion_bias=False), [ladder], 0)
    folder = save_artifact(former, tmp_path / "artifact", {})
    record = json.loads((folder / "config.json").read_text())
    del record["model"]["torsion_bias"], record["sha256"]
    (folder / "config.json").write_text(json.dumps(record | {"format": 1}))
    again = load_artifact(folder)
    assert again.bias is None
    assert torch.equal(drawn(former.eval(), ladder), drawn(again, ladder))
    now = build_stage("ca-fg", BY_HEART, [ladder], 0)
    assert start_from(folder, now)


def test_other_proteins_are_refused(tmp_path):
    stage = learned(ladder_of(SEQUENCE))
    other = ladder_of(SEQUENCE[::-1])
    with pytest.raises(InputError, match="another sequence"):
        stage.describe(other)
    with pytest.raises(InputError, match="per_system learns one molecule, there are 2"):
        build_stage("ca-fg", BY_HEART, [ladder_of(SEQUENCE), other], 0)
    artifact = save_artifact(stage, tmp_path / "artifact", {})
    with pytest.raises(ConfigError, match="it fits another molecule"):
        start_from(artifact, build_stage("ca-fg", BY_HEART, [other], 0))
    with pytest.raises(ConfigError, match=r"model.per_system is True there, False here"):
        start_from(artifact, build_stage("ca-fg", GenzprotConfig(), [other], 0))


def test_a_campaign_names_stages_of_the_package(tmp_path):
    record = {
        "name": "a",
        "ladder": ["fg", "ca", "ucg:5"],
        "systems": [{"name": "a", "trajectories": ["a.pdb"]}],
        "stages": {"ca-fg": {"model": {"kind": "genzprot"}, "artifact": "shipped"}},
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(record))
    assert load_campaign(path).stages["ca-fg"].artifact == str(shipped_artifact())
    begun = load_campaign(
        path, ["stages.ca-fg.artifact=null", "stages.ca-fg.train.init_from=shipped"]
    )
    assert begun.stages["ca-fg"].train.init_from == str(shipped_artifact())
    own = load_campaign(path, ["stages.ca-fg.artifact=./shipped"])
    assert own.stages["ca-fg"].artifact == str(tmp_path / "shipped")
    with pytest.raises(InputError, match="weights/ucg5-ca: this installation has no trained stage"):
        load_campaign(path, ["stages.ucg5-ca={model: {kind: cgvae}, artifact: shipped}"])
