"""Training that starts from the weights of an artifact."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig, TraceConfig
from hpcbackmap.config.load import load_campaign
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.training.init_from import start_from

STAGE = "ucg5-ca"
SMALL = {"width": 8, "layers": 1, "latent": 2}
TRANSFERABLE = TraceConfig(width=8, layers=1)


@pytest.fixture(scope="module")
def example(tmp_path_factory, example_dir):
    """A function: the campaign of the example with overrides, its frames ingested."""
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import LocalComm

    folder = tmp_path_factory.mktemp("example")
    for name in ("campaign.yaml", "trpcage.xtc", "trpcage_top.pdb"):
        shutil.copy(example_dir / name, folder)

    def campaign(*overrides):
        fixed = [
            f"stages.{STAGE}.model={{kind: trace, width: 8, layers: 1}}",
            f"stages.{STAGE}.train={{batch_size: 8, max_steps: 2, learning_rate: 1e-9, validation_frames: 4}}",
            f"store.path={folder / 'frames.zarr'}",
        ]
        return load_campaign(folder / "campaign.yaml", [*fixed, *overrides])

    ingest(campaign(), LocalComm())
    return campaign


def a_stage(name=STAGE, config=TRANSFERABLE, sequence="ACDEFGHIKLMNPQRSTVWY", seed=7):
    ladder = build_ladder(topology_from_sequence([sequence]), ["fg", "ca", "ucg:5"])
    return build_stage(name, config, [ladder], seed)


def artifact_of(stage, folder):
    return save_artifact(stage, folder, {})


def test_training_starts_from_an_artifact_and_resumes(example, tmp_path):
    """At a vanishing learning rate the weights stay what they were at the start."""
    from hpcbackmap.training.trainer import train

    given = artifact_of(a_stage(), tmp_path / "given")
    chosen = (f"workdir={tmp_path / 'work'}", f"stages.{STAGE}.train.init_from={given}")
    result = train(example(*chosen), STAGE)
    stage = tmp_path / "work" / "stages" / STAGE
    before, after = (load_file(path / "model.safetensors") for path in (given, stage / "artifact"))
    assert result["steps"] == 2
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, atol=1e-6, rtol=1e-5)

    (stage / "done.json").unlink()
    assert train(example(*chosen), STAGE)["steps"] == 2, "continues at the checkpoint"
    moved = shutil.copytree(given, tmp_path / "moved")
    again = (chosen[0], f"stages.{STAGE}.train.init_from={moved}")
    assert train(example(*again), STAGE)["steps"] == 2, "content counts, not place"
    other = artifact_of(a_stage(seed=8), tmp_path / "other")
    with pytest.raises(ConfigError, match="other settings, init_from was"):
        train(example(chosen[0], f"stages.{STAGE}.train.init_from={other}"), STAGE)
    with pytest.raises(ConfigError, match="other settings, init_from was"):
        train(example(chosen[0]), STAGE)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "ca-fg", "config": GenzprotConfig(width=8)}, "holds stage ca-fg, not ucg5-ca"),
        (
            {"config": TraceConfig(width=12, layers=1)},
            r"another network: model.width is 12 there, 8 here",
        ),
        (
            {"config": CgvaeConfig(**SMALL)},
            r"is a cgvae stage, this one is trace",
        ),
    ],
)
def test_another_rung_or_model_is_refused_by_name(tmp_path, given, reason):
    stage = a_stage()
    artifact = artifact_of(a_stage(**given), tmp_path / "given")
    weights = {key: value.clone() for key, value in stage.state_dict().items()}
    with pytest.raises(ConfigError, match=reason):
        start_from(artifact, stage)
    assert all(torch.equal(value, weights[key]) for key, value in stage.state_dict().items())


def test_another_molecule_is_refused_where_the_stage_fits_one(tmp_path):
    config = CgvaeConfig(**SMALL)
    artifact = artifact_of(a_stage(config=config), tmp_path / "given")
    start_from(artifact, a_stage(config=config, seed=1))
    with pytest.raises(ConfigError, match="it fits another molecule"):
        start_from(artifact, a_stage(config=config, sequence="ACDEFGHIKLMNPQRSTVYW"))


def test_loss_settings_may_differ(tmp_path):
    artifact = artifact_of(a_stage(config=CgvaeConfig(**SMALL)), tmp_path / "given")
    stage = a_stage(config=CgvaeConfig(beta=0.5, **SMALL), seed=1)
    start_from(artifact, stage)
    expected = a_stage(config=CgvaeConfig(**SMALL)).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in stage.state_dict().items())


def test_missing_artifact_is_named(example, tmp_path):
    from hpcbackmap.training.trainer import train

    missing = tmp_path / "nothing"
    campaign = example(f"workdir={tmp_path}", f"stages.{STAGE}.train.init_from={missing}")
    with pytest.raises(InputError, match=r"nothing/model.safetensors: no artifact to start from"):
        train(campaign, STAGE)
