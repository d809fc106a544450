"""A bit of an artifact or of shipped weights that flips is an error that names the file, never a structure."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hpcbackmap
from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.artifact import load_artifact, read_artifact_config, save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.sealed import read_sealed

SHIPPED = Path(hpcbackmap.__file__).parent / "weights"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of one molecule, so that its configuration has a ladder."""
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca", "ucg:3"])
    stage = build_stage("ucg3-ca", CgvaeConfig(width=8, layers=1, latent=2), [ladder], 0)
    return save_artifact(stage, tmp_path_factory.mktemp("a") / "artifact", {"data": "none"})


@pytest.fixture
def artifact(made, tmp_path):
    return shutil.copytree(made, tmp_path / "artifact")


def change(artifact, work):
    path = artifact / "config.json"
    record = json.loads(path.read_text())
    work(record)
    path.write_text(json.dumps(record))


def test_every_flipped_bit_of_the_weights_is_noticed(artifact):
    path = artifact / "model.safetensors"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in {0, 7, 9, len(data) - 1, *rng.integers(len(data), size=40).tolist()}:
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
            load_artifact(artifact)


def test_a_flipped_bit_of_the_configuration_is_noticed_or_changes_nothing(artifact):
    """Not noticed: white space, the card, and the hash of the weights, which they will not have."""
    path = artifact / "config.json"
    data = path.read_bytes()
    free = {"card": None, "sha256": None}
    before = read_artifact_config(artifact) | free
    rng = np.random.default_rng(1)
    noticed = 0
    for place in rng.integers(len(data), size=150).tolist():
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(7))
        path.write_bytes(broken)
        try:
            found = read_artifact_config(artifact)
        except InputError as error:
            noticed += "config.json" in str(error)
            continue
        assert found | free == before
    assert noticed > 100


DAMAGE = {
    "empty": (lambda a: (a / "config.json").write_text(""), "not JSON"),
    "halved": (lambda a: (a / "config.json").write_text((a / "config.json").read_text()[:80]), "not JSON"),
    "a list": (lambda a: (a / "config.json").write_text("[1]"), "not a JSON object"),
    "deep": (lambda a: (a / "config.json").write_text("[" * 100_000), "not JSON"),
    "no format": (lambda a: change(a, lambda r: r.pop("format")), "format is missing"),
    "format: text": (lambda a: change(a, lambda r: r.update(format="2")), "format is '2'"),
    "no model": (lambda a: change(a, lambda r: r.pop("model")), "model is missing"),
    "model: text": (lambda a: change(a, lambda r: r.update(model="x")), "model is 'x'"),
    "width": (lambda a: change(a, lambda r: r["model"].update(width=9)), "SHA-256"),
    "ladder": (
        lambda a: change(a, lambda r: r["ladder"]["mappings"][0]["weight"].__setitem__(0, 0.5)), "SHA-256",
    ),
    "format 1 of a sudden": (lambda a: change(a, lambda r: r.update(format=1)), "SHA-256"),
    "no hashes": (lambda a: change(a, lambda r: r.pop("sha256")), "sha256 is missing"),
    "no weights": (lambda a: (a / "model.safetensors").unlink(), "No such file"),
    "half the weights": (
        lambda a: (a / "model.safetensors").write_bytes((a / "model.safetensors").read_bytes()[:500]),
        "SHA-256",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_half_copied_and_edited_artifacts_are_named(artifact, case):
    work, words = DAMAGE[case]
    work(artifact)
    with pytest.raises(InputError, match=words) as error:
        load_artifact(artifact)
    assert str(artifact) in str(error.value)


def as_format_1(artifact):
    change(artifact, lambda r: (r.pop("sha256"), r.update(format=1)))


def test_an_artifact_of_format_1_loads_with_a_word(artifact, caplog):
    as_format_1(artifact)
    assert load_artifact(artifact).name == "ucg3-ca"
    assert "without a SHA-256" in caplog.text


@pytest.mark.parametrize(
    "work",
    [
        lambda r: r["model"].update(width=10**9),
        lambda r: r["model"].update(kind="other"),
        lambda r: r["model"].update(kind=["cgvae"]),
        lambda r: r["ladder"].pop("topology"),
        lambda r: r["ladder"]["topology"].update(sequence=["ALA", "XYZ"]),
        lambda r: r["ladder"]["topology"].update(disulphides=[[0]]),
        lambda r: r["ladder"].update(mappings=[{"bead": "x", "weight": [1.0]}]),
        lambda r: r.update(ladder=None),
        lambda r: r.update(coarse="ca"),
    ],
)
def test_what_format_1_says_wrong_is_one_line(artifact, work):
    as_format_1(artifact)
    change(artifact, work)
    with pytest.raises(InputError):
        load_artifact(artifact)


def test_weights_that_are_no_numbers_are_refused(artifact):
    as_format_1(artifact)
    weights = load_file(artifact / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, artifact / "model.safetensors")
    with pytest.raises(InputError, match="not all numbers"):
        load_artifact(artifact)


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.safetensors")), ids=lambda path: path.name)
def test_shipped_weights_are_sealed(path, tmp_path, caplog):
    if (path.parent / "config.json").exists():
        load_artifact(path.parent)
        assert read_artifact_config(path.parent)["sha256"]
    else:
        read_sealed(path)
    assert not caplog.text


@pytest.mark.parametrize(
    "path", sorted(SHIPPED.glob("calpha/*.safetensors")), ids=lambda path: path.name
)
def test_flipped_bits_of_sealed_weights_are_noticed(path, tmp_path):
    data = path.read_bytes()
    copy = tmp_path / path.name
    rng = np.random.default_rng(2)
    for place in [*rng.integers(len(data), size=20).tolist(), len(data) - 1]:
        broken = bytearray(data)
        broken[place] ^= 1
        copy.write_bytes(broken)
        with pytest.raises(InputError, match=path.name):
            read_sealed(copy)
    with safe_open(path, "pt") as file:
        assert len(file.metadata()["sha256"]) == 64
