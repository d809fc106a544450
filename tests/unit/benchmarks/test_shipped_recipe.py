"""The campaign of the shipped weights: which chains, which clusters."""

import csv

import pytest
import yaml

from hpcbackmap.config.campaign import Campaign
from tests.conftest import REPOSITORY


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "recipes"))
    import campaign

    return campaign


def write_index(folder, rows):
    folder.mkdir()
    with (folder / "index.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


IG = "EVQLVESGGGLVQPGGSLRLSCAASGFTFSDYW"
OTHER = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"
THIRD = "GDKPIWEQIGSSFIQHYYQLFDNDRTQLGAIY"


@pytest.fixture
def data(tmp_path):
    def more(name, sequence, cluster, split="train", repo="some/where"):
        return {
            "file": f"{name[:2]}/{name}.pdb.gz",
            "sequence": sequence,
            "cluster": cluster,
            "split": split,
            "repo": repo,
        }

    write_index(
        tmp_path / "static_more",
        [
            more("1aaa_A_1", IG, "c1"),
            more("1bbb_A_1", OTHER, "c2", "val"),
            more("1ccc_A_1", OTHER[::-1], "c3", "test"),
            more("1ddd_A_1", "A" * 40, "c4", repo="Acellera/moleculekit"),
            more("1jbb_A_1", "C" * 40, "c5"),
        ],
    )
    bm5 = {"1ABC_l_1": "GG" + IG[:20], "2ABC_r_1": OTHER, "3ABC_r_1": THIRD, "4ABC_r_1": THIRD[5:]}
    bm5 |= {"1B6C_l_1": THIRD[::-1]}
    rows = [{"file": f"{name}.pdb.gz", "sequence": text} for name, text in bm5.items()]
    write_index(tmp_path / "static_bm5", rows)
    return tmp_path


def test_chains_clusters_and_split(recipe, data):
    made = recipe.campaign(data, "ca")
    clusters = {system["name"]: system["cluster"] for system in made["systems"]}
    assert clusters == {
        "1aaa_A_1": "c1",
        "1bbb_A_1": "c2",
        "1ccc_A_1": "c3",
        "1ABC_l_1": "c1",
        "2ABC_r_1": "b-2ABC_r_1",
        "3ABC_r_1": "b-3ABC_r_1",
        "4ABC_r_1": "b-3ABC_r_1",
    }, "no relative, no academic licence; held-out chains attract none"
    assert made["split"]["validation_names"] == ["1bbb_A_1"]
    assert made["split"]["test_names"] == ["1ccc_A_1"]


@pytest.mark.parametrize(
    ("ladder", "stage"), [("ca", "ca-fg"), ("4", "ucgr4-ca"), ("10", "ucgr10-ca")]
)
def test_campaign_is_valid(recipe, data, ladder, stage):
    text = yaml.safe_dump(recipe.campaign(data, ladder))
    campaign = Campaign.model_validate(yaml.safe_load(text))
    assert list(campaign.stages) == [stage]
    assert campaign.clusters()["1ABC_l_1"] == "c1"


def test_a_third_set_joins_clusters_and_keeps_what_it_judges_by(recipe, data):
    """Its names never replace others; clusters that it links are one; val2 and test2 stay away."""

    def row(name, sequence, cluster, split="train"):
        file = f"{name[:2]}/{name}.pdb.gz"
        return {"file": file, "sequence": sequence, "cluster": cluster, "split": split}

    linked = {"c0005": "L" * 40, "c0343": "K" * 40}
    more = [row(f"9{c[-3:]}_A_1", text, c) for c, text in linked.items()]
    with (data / "static_more" / "index.csv").open("a") as file:
        csv.DictWriter(file, [*more[0], "repo"]).writerows(more)
    write_index(
        data / "static_3",
        [
            row("9005_A_1", THIRD, "c0005"),
            row("2bbb_A_1", OTHER, "d1", "val2"),
            row("2ccc_A_1", OTHER, "d2", "test2"),
            row("1z2u_A_1", IG, "d3"),
        ],
    )
    chains = recipe.read_chains(data)
    assert {name: r["cluster"] for name, r in chains.items() if name.startswith(("9", "3A"))} == {
        "9005_A_1": "c0005",
        "9343_A_1": "c0005",
        "9005_A_1-3": "c0005",
        "3ABC_r_1": "c0005",
    }
    assert not {"2bbb_A_1", "2ccc_A_1", "1z2u_A_1"} & chains.keys()


@pytest.mark.trains
def test_of_the_real_data_no_test_family_trains(recipe, data_dir):
    """Left out are 11, 4 and 4 relatives, 10 chains by licence, one broken, 240 to judge by."""
    if not (data_dir / "static_3").is_dir():
        pytest.skip(f"no static_3 in {data_dir}")
    chains = recipe.read_chains(data_dir)
    assert len(chains) == 1777 + 367 + 3534 - 11 - 4 - 4 - 10 - 1 - 240
    held_out = {row["cluster"] for row in chains.values() if row["split"] != "train"}
    assert not held_out & {row["cluster"] for row in chains.values() if row["split"] == "train"}
    assert not recipe.RELATIVES & chains.keys()
    assert all(row["path"].is_file() for row in list(chains.values())[::200])
