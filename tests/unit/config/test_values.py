"""No key of a campaign takes a text of two lines or a number that no machine has; whatever key it is."""

import json
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hpcbackmap.config.campaign import KINDS, Campaign, GenzprotConfig
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import ConfigError

EVIL = "x\ntouch executed\n#"
STAGES = {"ca-fg": "genzprot", "ucg5-ca": "trace"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example_dir):
    folder = tmp_path_factory.mktemp("campaign")
    record = yaml.safe_load((example_dir / "campaign.yaml").read_text())
    record["stages"] = {name: {"model": {"kind": kind}} for name, kind in STAGES.items()}
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))
    return folder


def keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key and JSON schema of every value below a model."""
    schema = model.model_json_schema()["properties"]
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name == "stages":
            for stage, of in STAGES.items():
                found += keys(KINDS[of], f"stages.{stage}.model.")
                for part in ("train", "node_group"):
                    inner = model_of(Campaign, "stages").model_fields[part].annotation
                    found += keys(inner, f"stages.{stage}.{part}.")
                found.append((f"stages.{stage}.artifact", {"type": "string"}))
        elif name == "systems":
            found += [(f"systems.0.{key}", of) for key, of in keys(model_of(Campaign, "systems"))]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys(kind, f"{prefix}{name}.")
        else:
            found.append((prefix + name, schema[name]))
    return found


def model_of(model, name):
    return model.model_fields[name].annotation.__args__[-1]


def kinds(schema) -> set[str]:
    options = schema.get("anyOf", [schema])
    found = {option["type"] for option in options if "type" in option}
    for option in options:
        if option.get("type") == "array":
            found |= {f"list of {kind}" for kind in kinds(option["items"])}
    return found


TEXTS = [key for key, schema in keys(Campaign) if "string" in kinds(schema)]
LISTS = [key for key, schema in keys(Campaign) if "list of string" in kinds(schema)]
NUMBERS = [key for key, schema in keys(Campaign) if kinds(schema) & {"integer", "number"}]


def load(folder, key, value):
    if key.startswith("systems.0."):
        record = yaml.safe_load((folder / "campaign.yaml").read_text())
        record["systems"][0][key.removeprefix("systems.0.")] = value
        path = folder / "one.yaml"
        path.write_text(json.dumps(record))
        return load_campaign(path)
    return load_campaign(folder / "campaign.yaml", [f"{key}={json.dumps(value)}"])


def test_the_keys_are_found():
    assert {"name", "workdir", "systems.0.name", "stages.ca-fg.node_group.partition"} <= set(TEXTS)
    assert {"ladder", "backmap.keep", "node_groups.ingest.sbatch"} <= set(LISTS)
    assert {"backmap.members", "stages.ca-fg.model.width", "store.chunk_mb"} <= set(NUMBERS)
    assert len(NUMBERS) > 60


@pytest.mark.parametrize("key", TEXTS)
def test_texts_are_one_printable_line(folder, key):
    for character in "\n\r\x1b\x00\u2028\u202e":
        with pytest.raises(ConfigError):
            load(folder, key, f"x{character}touch executed")


@pytest.mark.parametrize("key", LISTS)
def test_texts_in_lists_are_one_printable_line(folder, key):
    with pytest.raises(ConfigError):
        load(folder, key, [EVIL])


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_are_ones_that_a_machine_has(folder, key):
    for value in (10**30, -1, float("inf"), float("nan"), 10.0**30):
        with pytest.raises(ConfigError) as error:
            load(folder, key, value)
        assert key.rpartition(".")[2] in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["backmap.members={ucg5-ca: 5000, ca-fg: 5000}"], "10,000 structures"),
        (["stages.ca-fg.model.width=4096", "stages.ca-fg.model.layers=64"], "a billion parameters"),
        (["ladder=[fg, ca, 'file:/x/<b>.yaml']", "stages={}"], "a resolution's name"),
        (["ladder=[fg, ca, 'file:/x/a-b.yaml']", "stages={}"], "a resolution's name"),
        (["node_groups.ingest.sbatch=['--comment=\"half']"], "No closing quotation"),
        (["node_groups.ingest.mem=64 GB"], "mem"),
        (["store={a: &a [*a]}"], "not a YAML value"),
        (["name=" + "[" * 5000], "not a YAML value"),
        (["backmap.frames=" + "9" * 5000 + ":"], "frames"),
        (["split.by=time\nname: x"], "U+000A"),
    ],
)
def test_values_that_only_look_right(folder, overrides, named):
    with pytest.raises(ConfigError) as error:
        load_campaign(folder / "campaign.yaml", overrides)
    assert named in str(error.value)


def test_a_folder_with_a_line_break_is_refused(folder):
    evil = folder / "a\ntouch executed"
    evil.mkdir(exist_ok=True)
    (evil / "campaign.yaml").write_text((folder / "campaign.yaml").read_text())
    with pytest.raises(ConfigError, match=r"U\+000A"):
        load_campaign(evil / "campaign.yaml")


def test_names_of_people_are_fine(folder):
    campaign = load_campaign(
        folder / "campaign.yaml", ["name=José’s β-hairpin 蛋白 नेपाल", "workdir=it's 100 %"]
    )
    assert campaign.workdir.endswith("it's 100 %")
    assert GenzprotConfig(width=1024, layers=64).width == 1024
