"""The denoiser of traces: what it learns, what it keeps, and what secondary structure tells it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import sha256_of
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages import artifact
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.stages.trace.denoiser import Denoiser
from hpcbackmap.stages.trace.secondary_structure import SecondaryStructure
from hpcbackmap.stages.trace.system import trace_system

SEQUENCE = "ADEKLAEEIKRALEAGNPDSEALKKVLEWARRLGSGNPEDLARQ"


def helix(n):
    angle = np.radians(100) * np.arange(n)
    return np.stack([0.23 * np.cos(angle), 0.23 * np.sin(angle), 0.15 * np.arange(n)], 1)


def case(per=5):
    ladder = build_ladder(topology_from_sequence([SEQUENCE]), ["fg", "ca", f"ucg:/{per}"])
    system = collate([trace_system(ladder, "ca", ladder.resolutions[2])])
    trace = helix(len(SEQUENCE))
    beads = ladder.mappings[1].apply(trace)
    return ladder, system, *(torch.from_numpy(x).float()[None] for x in (trace, beads))


def turns(trace):
    """Share of four residues in a row that lie as in a right-handed helix."""
    apart = np.linalg.norm(trace[3:] - trace[:-3], axis=-1)
    step = np.diff(trace, axis=0)
    volume = (np.cross(step[:-2], step[1:-1]) * step[2:]).sum(-1)
    return float(((np.abs(apart - 0.5) < 0.1) & (volume > 0)).mean())


@pytest.mark.trains
def test_learns_what_traces_look_like_and_keeps_their_beads():
    """Of nothing but helices it makes a helix of what noise has bent, with the same beads."""
    ladder, system, trace, beads = case()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Denoiser(16, neighbours=6)
        several = trace.expand(4, -1, -1), beads.expand(4, -1, -1)
        shape = (4, len(SEQUENCE), 4)
        untrained = net.loss(several[0], torch.randn(shape), several[1], system)
        assert abs(float(untrained) - 0.8) < 0.15, "1 less what beads keep"
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(160):
            loss = net.loss(several[0], torch.randn(shape), several[1], system)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        bent = trace + 0.15 * torch.randn(trace.shape)
        mean = torch.from_numpy(ladder.mappings[1].apply((bent - trace)[0].numpy())).float()
        bent = bent - mean[ladder.mappings[1].bead]
        trans = torch.zeros(1, len(system.bond_index), dtype=torch.bool)
        made = net.refined(bent, beads, system, trans)
    assert float((made - trace).norm(dim=-1).mean()) < 0.4 * float(
        (bent - trace).norm(dim=-1).mean()
    )
    assert turns(made[0].numpy()) > turns(bent[0].numpy()) + 0.3
    again = ladder.mappings[1].apply(made[0].numpy())
    assert np.abs(again - beads[0].numpy()).max() < 1e-5


def test_closing_has_little_left_to_do():
    """Links are closed while there are steps to come: what closing does at the end bends no trace."""
    stage = load_artifact(shipped_artifact("beads-ca"))
    ladder, _, _, beads = case(5)
    stage = stage.at_rung(f"{ladder.resolutions[2]}-ca")
    system = collate([stage.describe(ladder)])
    noise = torch.from_numpy(frame_noise(0, stage.name, [0], 0, beads.shape[1], stage.noise_width))
    with torch.no_grad():
        context = stage.network.context(beads, system)
        links = stage._cis_links(context, system, [noise])
        before = stage._draws(context, beads, system, [noise], links)
        (after,) = stage.samples(beads, system, [noise])
    length = (before[:, 1:] - before[:, :-1]).norm(dim=-1)
    assert float((length - 0.38).abs().max()) < 0.02
    assert float((after - before).norm(dim=-1).max()) < 0.02


def test_secondary_structure_that_is_told_is_made():
    """The shipped stage makes more turns of a helix where it is told of one than where of a strand."""
    stage = load_artifact(shipped_artifact("beads-ca"))
    ladder, _, _, _ = case(5)
    stage = stage.at_rung(f"{ladder.resolutions[2]}-ca")
    angle = 0.15 * np.arange(len(SEQUENCE)) / 2
    line = np.stack([2 * np.cos(angle), 2 * np.sin(angle), 0.02 * np.arange(len(SEQUENCE))], 1)
    beads = torch.from_numpy(ladder.mappings[1].apply(line)).float()[None]
    found = {}
    for letter in "H?E":
        stage.structure = SecondaryStructure(letter * len(SEQUENCE))
        with torch.no_grad():
            found[letter] = turns(stage.mode(beads, collate([stage.describe(ladder)]))[0].numpy())
    assert found["H"] >= found["?"] > found["E"]
    assert found["H"] > found["E"] + 0.1, found


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("HGE-?" + "C" * 4 + "/" + "B" * 3, [1, 1, 2, 3, 0, 3, 3, 3, 3, 2, 2, 2]),
        ("HGE-?CCCCBBB", [1, 1, 2, 3, 0, 3, 3, 3, 3, 2, 2, 2]),
    ],
)
def test_letters_of_residues(letters, expected):
    topology = topology_from_sequence(["ACDEFGHIK", "GGG"])
    assert SecondaryStructure(letters).states(topology).tolist() == expected


def test_letters_of_one_chain_serve_its_copies():
    topology = topology_from_sequence(["GGG", "GGG"])
    assert SecondaryStructure("HEC").states(topology).tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        ("HHHZ", "letter 4 is 'Z'"),
        ("/", "empty"),
        ("HHHH", "4 letters; the protein has 12 residues (9 for chain A, 3 for chain B)"),
        ("HHH/" + "H" * 9, "3, 9 letters"),
    ],
)
def test_letters_that_do_not_fit_are_refused(letters, words):
    topology = topology_from_sequence(["ACDEFGHIK", "GGG"])
    with pytest.raises(InputError) as caught:
        SecondaryStructure(letters).states(topology)
    assert words in str(caught.value)


def test_an_artifact_from_before_there_was_a_denoiser_loads_without_one(tmp_path):
    from hpcbackmap.stages.build import build_stage

    ladder, *_ = case()
    small = TraceConfig(width=16, layers=1, rounds=2, neighbours=6, denoiser=0)
    stage = build_stage(f"{ladder.resolutions[2]}-ca", small, [ladder], 0)
    folder = save_artifact(stage, tmp_path / "a", {})
    config = artifact.read_artifact_config(folder)
    del config["model"]["denoiser"]
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors")
    config["sha256"] = {
        "model.safetensors": sha256_of(folder / "model.safetensors"),
        "config.json": artifact._own_digest(config),
    }
    (folder / "config.json").write_text(artifact.json.dumps(config))
    assert load_artifact(folder).denoiser is None
