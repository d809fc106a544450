"""The campaign file: what is wrong is named, what is right survives being written out."""

from pathlib import Path

import pytest

from hpcbackmap.config.load import load_campaign, resolved_yaml
from hpcbackmap.runtime.errors import ConfigError

CAMPAIGN = """
name: small
ladder: [fg, ca, "ucg:5"]
systems: [{name: one, topology: top.pdb, trajectories: ["*.xtc"]}]
stages:
  ca-fg: {model: {kind: genzprot}}
  ucg5-ca: {model: {kind: cgvae}}
"""


@pytest.fixture
def campaign_file(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(CAMPAIGN)
    return path


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("store.chunk_mbs=1", ["store.chunk_mbs", "'chunk_mb'"]),
        ("stages.ca-fg.model.widht=8", ["stages.ca-fg.model.widht", "'width'"]),
        ("stages.ca-fg.train.learning_rates=1", ["train.learning_rates", "'learning_rate'"]),
        ("split.by=residue", ["split.by", "'time', 'source' or 'system'"]),
        ("backmap.members=many", ["backmap.members", "integer"]),
        ("backmap.members=0", ["backmap.members", "greater than 0"]),
        ("split.test=1.5", ["split.test", "less than 1"]),
        ("systems.name=two", ["systems.name=two", "no keys"]),
        ("stages.ucg5-fg.model.kind=cgvae", ["stages.ucg5-fg", "no such rung", "ucg5-ca"]),
        ("stages.ucg5-ca.model.kind=genzprot", ["stages.ucg5-ca", "genzprot"]),
        ("stages.ca-fg.model.kind=unet", ["stages.ca-fg.model", "unet"]),
        ("ladder=[ca, fg]", ["ladder", "starts at fg"]),
        ("ladder=[fg, ca, ca]", ["ladder", "one name"]),
        ("members", ["'members'", "dotted.key=value"]),
        ("backmap.members=[1", ["backmap.members=[1", "YAML"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(campaign_file, override, named):
    with pytest.raises(ConfigError) as caught:
        load_campaign(campaign_file, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in named), message


def test_every_wrong_key_is_reported_at_once(campaign_file):
    with pytest.raises(ConfigError) as caught:
        load_campaign(campaign_file, ["nmae=x", "backmap.seeds=1"])
    assert "'nmae'" in str(caught.value)
    assert "'backmap.seeds'" in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "name: [", "\x00"])
def test_a_file_that_is_no_campaign_is_named(tmp_path, text):
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"campaign\.yaml"):
        load_campaign(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        load_campaign(tmp_path / "absent.yaml")


def test_overrides_reach_nested_keys_with_yaml_values(campaign_file):
    campaign = load_campaign(
        campaign_file,
        ["stages.ca-fg.train.learning_rate=3.0e-4", "backmap.mode=true", "split.test_names=[a, b]"],
    )
    assert campaign.stages["ca-fg"].train.learning_rate == 3e-4
    assert campaign.backmap.mode is True
    assert campaign.split.test_names == ["a", "b"]


def test_paths_are_relative_to_the_file_not_to_the_caller(campaign_file, monkeypatch):
    monkeypatch.chdir("/")
    campaign = load_campaign(campaign_file, ["backmap.input=s3://bucket/coarse.zarr"])
    folder = campaign_file.parent
    assert Path(campaign.workdir) == folder / "work"
    assert campaign.systems[0].trajectories == [str(folder / "*.xtc")]
    assert campaign.systems[0].topology == str(folder / "top.pdb")
    assert campaign.backmap.input == "s3://bucket/coarse.zarr"
    with pytest.raises(ConfigError, match=r"backmap.output: .*to a folder, not to a URL"):
        load_campaign(campaign_file, ["backmap.output=s3://bucket/fine.zarr"])


def test_the_resolved_file_says_the_same_from_anywhere(campaign_file, tmp_path_factory):
    campaign = load_campaign(campaign_file, ["stages.ca-fg.train.max_steps=7"])
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "campaign.yaml"
    elsewhere.write_text(resolved_yaml(campaign))
    again = load_campaign(elsewhere)
    assert again == campaign
    assert again.digest() == campaign.digest()
    assert "warmup_steps" in elsewhere.read_text()


@pytest.mark.parametrize("example", ["trpcage", "adk"])
def test_the_examples_are_valid_and_train_every_rung(example):
    campaign = load_campaign(Path(__file__).parents[3] / "examples" / example / "campaign.yaml")
    assert set(campaign.stages) == set(campaign.rungs())


def test_a_moved_campaign_is_the_same(campaign_file, tmp_path):
    """Folders, and what only watches a training, decide no result."""
    here = load_campaign(campaign_file).digest()
    (tmp_path / "elsewhere").mkdir()
    there = Path(campaign_file.rename(tmp_path / "elsewhere" / "campaign.yaml"))
    assert load_campaign(there).digest() == here
    for same in ("train.log_every=7", "train.checkpoint_every=3"):
        assert load_campaign(there, [f"stages.ca-fg.{same}"]).digest() == here
    assert load_campaign(there, ["workdir=/scratch/me/work"]).digest() == here
    for other in ("stages.ca-fg.train.max_steps=7", "backmap.frames=0:8", "store.quantise=true"):
        assert load_campaign(there, [other]).digest() != here
