"""Settings of former versions: campaigns, artifacts and records of the time when `trace` was a `cgvae`."""

import json
import logging

import pytest
from safetensors.torch import load_file

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig, TraceConfig
from hpcbackmap.config.conversion import current_identity, current_model
from hpcbackmap.config.load import load_campaign
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.build import build_stage

SMALL = {"width": 8, "layers": 1, "latent": 2}
FORMER = CgvaeConfig(**SMALL).model_dump() | {
    "neighbours": 16,
    "rounds": 4,
    "draws_weight": 1.0,
}
TRACE = TraceConfig(width=8, layers=1, neighbours=16, rounds=4, denoiser=0)
CAMPAIGN = """
name: former
ladder: [fg, ca, "ucg:5", "ucg:10"]
systems: [{name: first, trajectories: [first.xtc]}]
stages:
  %s: {model: {kind: cgvae, per_system: %s, width: 8, neighbours: 9}}
"""


@pytest.fixture
def said(caplog):
    """Log lines of the conversion."""
    caplog.set_level(logging.INFO)
    return lambda: [it.getMessage() for it in caplog.records if it.name.endswith("conversion")]


def former_artifact(folder, per_system: bool):
    """A stage of today in a folder as a former version wrote it."""
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY"]), ["fg", "ca", "ucg:5"])
    config = CgvaeConfig(**SMALL) if per_system else TRACE
    stage = build_stage("ucg5-ca", config, [ladder], 0)
    save_artifact(stage, folder, {})
    record = json.loads((folder / "config.json").read_text())
    record["model"] = FORMER | {"per_system": per_system}
    record["format"] = 1
    del record["sha256"]
    (folder / "config.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(("per_system", "kind"), [(True, "cgvae"), (False, "trace")])
def test_former_artifact_is_the_kind_it_was(tmp_path, said, per_system, kind):
    folder = former_artifact(tmp_path / "artifact", per_system)
    stage = load_artifact(folder)
    assert stage.kind == stage.config.kind == kind
    weights = load_file(folder / "model.safetensors")
    assert {key: value.shape for key, value in stage.state_dict().items()} == {
        key: value.shape for key, value in weights.items()
    }
    assert len(said()) == 1
    assert said()[0].startswith("stage ucg5-ca: ")
    again = load_artifact(save_artifact(stage, tmp_path / "again", {}))
    assert again.config == stage.config
    assert len(said()) == 1, "written anew, nothing is left to say"


def test_former_artifact_of_many_proteins_and_other_particles_is_refused(tmp_path):
    folder = former_artifact(tmp_path / "artifact", False)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"fine": "ucg2", "stage": "ucg5-ucg2"}))
    with pytest.raises(
        InputError, match="stage ucg5-ucg2: cgvae learns one protein; the kind trace"
    ):
        load_artifact(folder)


@pytest.mark.parametrize(("per_system", "kind"), [("true", "cgvae"), ("false", "trace")])
def test_former_campaign_reads_as_today(tmp_path, said, per_system, kind):
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN % ("ucg5-ca", per_system))
    model = load_campaign(path).stages["ucg5-ca"].model
    assert (model.kind, model.width) == (kind, 8)
    assert getattr(model, "neighbours", None) == (9 if kind == "trace" else None)
    assert len(said()) == 1
    assert said()[0].startswith("stages.ucg5-ca.model: ")
    chosen = load_campaign(path, ["stages.ucg5-ca.model.per_system=true"]).stages["ucg5-ca"]
    assert chosen.model.kind == "cgvae"


def test_many_proteins_to_other_particles_are_refused_by_the_word_trace(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN % ("ucg10-ucg5", "false"))
    with pytest.raises(
        ConfigError, match=r"ucg10-ucg5.model: cgvae learns one .* kind trace .*ucg5"
    ):
        load_campaign(path)
    path.write_text(CAMPAIGN.replace("cgvae, per_system: %s", "trace") % "ucg10-ucg5")
    with pytest.raises(ConfigError, match="ucg10-ucg5: trace places C-alpha atoms; use cgvae here"):
        load_campaign(path)


def test_key_of_trace_in_a_new_cgvae_is_unknown(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN.replace("per_system: %s, ", "") % "ucg5-ca")
    with pytest.raises(ConfigError, match=r"unknown key .stages\.ucg5-ca\.model\.neighbours"):
        load_campaign(path)


def test_record_of_a_former_training_is_compared_in_todays_words(said):
    former = {"stage": "ucg5-ca", "model": FORMER | {"per_system": False}, "store": "x"}
    now = current_identity(former)
    assert now == {"stage": "ucg5-ca", "store": "x", "model": TRACE.model_dump()}
    heavy = GenzprotConfig().model_dump()
    former = {k: v for k, v in heavy.items() if k not in ("per_system", "torsion_bias")}
    assert current_identity({"stage": "ca-fg", "model": former})["model"] == heavy
    former["per_system"] = True
    by_heart = heavy | {"per_system": True, "torsion_bias": False}
    assert current_identity({"stage": "ca-fg", "model": former})["model"] == by_heart
    assert said() == []
    assert current_identity(now) == now
    assert current_identity({}) == {}


def test_models_of_today_pass_unchanged():
    for config in (CgvaeConfig(), TraceConfig(), GenzprotConfig(per_system=True)):
        assert current_model(config.model_dump(), "ca", "here") == config.model_dump()
