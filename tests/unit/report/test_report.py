"""The report: one file that needs nothing else, with the frames and numbers that were judged."""

import base64
import hashlib
import html
import json
import logging
import re
from html.parser import HTMLParser

import mdtraj
import numpy as np
import pytest
from judged_campaign import LADDER, load_example, make_campaign, write_training_records
from matplotlib.figure import Figure

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.campaign import evaluate_campaign, open_sources
from hpcbackmap.report import page as page_module
from hpcbackmap.report import report
from hpcbackmap.report.page import FigureOnPage, Section, ViewOnPage, page
from hpcbackmap.report.report import write_report
from hpcbackmap.report.sample import collect
from hpcbackmap.report.viewer import viewer_data
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.store.store import create_store, open_store

FIGURES = {
    "ladder", "members", "residue_rmsd", "frames", "ramachandran", "rotamers", "rotamer_map",
    "bond_lengths", "training", "confidence",
}  # fmt: skip
NAMES = ("first.1", "second")
PICTURE = bytes(16) + (4).to_bytes(4) + (3).to_bytes(4)
"""Of a PNG what the page reads: its width and height."""
EXPECTED = np.linspace(0.02, 0.3, 20)
POOLED = {"ramachandran", "rotamers", "rotamer_map", "bond_lengths"}
ELBO = {
    "what": "8 held-out frames",
    "rows": [
        {
            "stage": "ca-fg",
            "variance": "learned per atom type",
            "elbo_nats_per_frame": -123.4,
            "elbo_interval_95": [-130.0, -120.0],
            "elbo_nats_per_particle": -0.801,
            "iwae_nats_per_frame": -122.9,
            "kl_nats_per_frame": 0.01,
            "active_units_per_bead": 0.0,
            "latent_units": 16,
            "frames": 8,
            "collapse": "posterior",
        },
    ],
    "ladder": None,
}


@pytest.fixture(scope="module")
def example(example_dir):
    return load_example(example_dir)


@pytest.fixture(scope="module")
def reported(tmp_path_factory, example):
    folder = tmp_path_factory.mktemp("campaign")
    noise = 0.03 * np.random.default_rng(1).normal(size=(2, 1, *example[1].shape[1:]))
    campaign = make_campaign(
        folder, *example, lambda truth, member: truth + noise[member], errors=EXPECTED
    )
    evaluate_campaign(campaign, LocalComm())
    write_training_records(campaign)
    output = write_report(campaign, folder / "out" / "report.html")
    return campaign, output.read_text()


def make_two_systems(folder, topology, positions) -> Campaign:
    """Stores of a campaign of two systems; the last fifth of each is answered by the truth itself."""
    n = len(positions)
    ladder = build_ladder(topology, LADDER)
    campaign = Campaign(
        name="two",
        workdir=str(folder),
        ladder=LADDER,
        systems=[{"name": name, "trajectories": ["unused.xtc"]} for name in NAMES],
    )
    held_out = np.arange(n - n // 5, n)
    ladders, levels = dict.fromkeys(NAMES, ladder), ladder.coarsen(positions)
    frames = create_store(
        folder / "frames.zarr", ladders, dict.fromkeys(NAMES, n), ["fg", "ca", "ucg5"],
        campaign.store, {}, shard_frames=n,
    )  # fmt: skip
    made = create_store(
        folder / "backmapped.zarr", ladders, dict.fromkeys(NAMES, len(held_out)), ["fg", "ca"],
        campaign.store, {}, shard_frames=len(held_out),
        observables={"source_frame": "int64", "member": "int64"},
    )  # fmt: skip
    for name in NAMES:
        frames.system(name).write_shard(0, levels, {})
        shard = {key: levels[key][held_out] for key in ("fg", "ca")}
        source = held_out + frames.system(name).first_frame
        made.system(name).write_shard(0, shard, {"source_frame": source, "member": 0 * source})
    frames.mark_complete()
    made.mark_complete()
    return campaign


def without_images(page: str) -> str:
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)


def view_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])


def decoded(data: dict, frame: int) -> np.ndarray:
    """Positions [structures, atoms, 3] of one frame of a view, nm."""
    values = np.frombuffer(base64.b64decode(data["frames"][frame]["xyz"]), "<i2")
    return data["scale"] * values.reshape(len(data["structures"]), data["atoms"], 3)


def distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


def test_report_is_one_file_without_network(reported):
    _, page = reported
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "default-src 'none'" in page
    outside = without_images(page)
    assert not re.search(r"https?:|@import|url\(|<link|<iframe|fetch\(|XMLHttp|import\(", outside)
    assert set(re.findall(r'src="([^"]*)"', outside)) == {""}


def test_report_shows_the_numbers_and_every_figure(reported):
    campaign, page = reported
    assert "prior samples, held-out frames" in page.lower()
    for text in (
        "This model",
        "Nearest training frame",
        "Bead centre",
        "Truth",
        "On the way: ca",
        "A member is a prior sample",
    ):
        assert text in page
    embedded = [
        base64.b64decode(data) for data in re.findall(r"png;base64,([A-Za-z0-9+/=]+)", page)
    ]
    written = {path.stem: path.read_bytes() for path in campaign.path("figures").glob("*.png")}
    assert set(written) == FIGURES
    assert sorted(embedded) == sorted(written.values())
    assert all(image.startswith(b"\x89PNG") for image in embedded)


def test_report_tells_confidence_and_energies(reported):
    _, page = reported
    told = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))
    assert told["Expected error, mean"] == "1.2 Å"
    assert told["– energy after, median"] == "−148.0 kJ/mol per residue"
    assert "Hydrogens" not in told, "what was not done is not told"
    data = view_of(page)
    errors = np.frombuffer(base64.b64decode(data["frames"][0]["errors"]), np.uint8)
    shown = data["errorStep"] * errors.reshape(2, 20)
    np.testing.assert_allclose(shown, np.tile(10 * EXPECTED, (2, 1)), atol=0.03)


def test_every_link_of_the_contents_leads_somewhere(reported):
    _, page = reported
    outside = without_images(page)
    links = re.findall(r'href="#([^"]*)"', outside)
    assert len(links) >= 5
    assert set(links) <= set(re.findall(r'id="([^"]*)"', outside))
    assert len(set(links)) == len(links)


def test_the_view_holds_the_stored_structures(reported, example):
    """Distances do not change when frames are turned, so they show which atoms went where."""
    campaign, page = reported
    _, positions = example
    data = view_of(page)
    made = open_store(campaign.path("backmapped.zarr")).system("trpcage")
    assert [item["label"] for item in data["structures"]] == [
        "truth", "member 1", "member 2", "nearest training frame",
    ]  # fmt: skip
    assert len(data["frames"]) == 8
    for k, shown in enumerate(data["frames"]):
        frame = int(shown["label"])
        stored = made.read("fg", 2 * (frame - 32), 2 * (frame - 32) + 2)
        for drawn, expected in zip(decoded(data, k), [positions[frame], *stored], strict=False):
            assert np.abs(distances(drawn) - distances(expected)).max() < 4 * data["scale"]


def test_the_view_keeps_members_where_they_lie_and_never_mirrors(reported, example):
    campaign, page = reported
    _, positions = example
    data = view_of(page)
    stored = open_store(campaign.path("backmapped.zarr")).system("trpcage").read("fg", 0, 2)
    drawn, frame = decoded(data, 0), int(data["frames"][0]["label"])
    offset = np.linalg.norm(stored[0] - positions[frame], axis=-1)
    assert np.abs(np.linalg.norm(drawn[1] - drawn[0], axis=-1) - offset).max() < 4 * data["scale"]

    def volume(x):
        return np.linalg.det(x[[20, 60, 100]] - x[0])

    assert np.sign(volume(drawn[0])) == np.sign(volume(positions[frame]))


def test_the_view_tells_the_rmsd_of_every_structure(reported, example):
    _, page = reported
    topology, _ = example
    data = view_of(page)
    for k, shown in enumerate(data["frames"]):
        drawn = mdtraj.Trajectory(decoded(data, k), topology.to_mdtraj())
        expected = 10 * mdtraj.rmsd(drawn, drawn, 0)[1:]
        told = [float(note.split()[1]) for note in shown["notes"][1:]]
        assert np.allclose(told, expected, atol=0.011)


def test_the_view_knows_bonds_trace_and_side_chains(reported, example):
    _, page = reported
    topology, _ = example
    data = view_of(page)
    bonds = np.frombuffer(base64.b64decode(data["bonds"]), "<u4").reshape(-1, 2)
    assert (bonds == topology.bonds).all()
    trace = np.frombuffer(base64.b64decode(data["trace"]), "<u4")
    assert [topology.atom_names[i] for i in trace] == ["CA"] * topology.n_residues
    named = {topology.atom_names[i] for i, flag in enumerate(data["side"]) if flag == "0"}
    assert named == {"N", "CA", "C", "O", "OXT"}


def test_the_view_stays_within_its_budget_and_its_script(reported, example, monkeypatch):
    campaign, _ = reported
    sources = open_sources(campaign)
    shown = collect(sources, sources.pairs[0])
    text = viewer_data(shown._replace(system="</script><b>"))
    assert "<" not in text
    assert json.loads(text)["system"] == "</script><b>"
    monkeypatch.setattr("hpcbackmap.report.viewer.BUDGET", 10)
    data = json.loads(viewer_data(shown))
    assert [item["label"] for item in data["frames"]] == [str(shown.frames[shown.pictured])]


def test_given_up_frames_are_not_shown(tmp_path, example):
    topology, positions = example

    def answer(truth, member):
        made = truth.copy()
        made[0] = np.nan
        return made

    campaign = make_campaign(tmp_path, topology, positions, answer)
    sources = open_sources(campaign)
    assert list(collect(sources, sources.pairs[0]).frames) == list(range(33, 40))


def test_the_elbo_is_told_if_it_is_of_these_frames(reported, tmp_path, caplog, monkeypatch):
    campaign, page = reported
    monkeypatch.setattr(report, "_draw", lambda *_: [])
    assert "ELBO of every stage" not in page
    own = open_sources(campaign).own.digest
    path = campaign.path("elbo.json")
    try:
        path.write_text(json.dumps(ELBO | {"store": own}))
        told = write_report(campaign, tmp_path / "a.html").read_text()
        assert "ELBO of every stage" in told
        assert "learned per atom type" in told
        row = re.search(r'<th scope="row">ca-fg</th>(.*?)</tr>', told)[1]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        assert cells[0] == "−123.4<small>−130.0 … −120.0</small>"
        assert cells[-1] == "posterior"
        assert "whole ladder" not in told
        path.write_text(json.dumps(ELBO | {"store": "another"}))
        with caplog.at_level(logging.WARNING):
            assert "ELBO of every" not in write_report(campaign, tmp_path / "b.html").read_text()
        assert "another frame store" in caplog.text
    finally:
        path.unlink()


@pytest.mark.trains
def test_all_systems_have_figures_up_to_a_limit_that_is_told(tmp_path, example, monkeypatch):
    # Which figures there are; how they are written is tested with the campaign of one system.
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(PICTURE))
    campaign = make_two_systems(tmp_path, *example)
    evaluate_campaign(campaign, LocalComm())
    page = write_report(campaign, tmp_path / "all.html").read_text()
    assert "<h2>All systems</h2>" in page
    for name in NAMES:
        assert f"<h2>{name}</h2>" in page
    assert page.count('class="viewer"') == 2
    written = {path.stem for path in campaign.path("figures").glob("*.png")}
    single = FIGURES - {"training", "confidence"}
    assert written == POOLED | {f"{name}-{drawn}" for name in NAMES for drawn in single}
    monkeypatch.setattr(report, "_draw", lambda *_: [])
    monkeypatch.setattr(report, "SHOWN_SYSTEMS", 1)
    page = write_report(campaign, tmp_path / "one.html").read_text()
    assert page.count('class="viewer"') == 1
    assert "<h2>second</h2>" not in page
    assert "the first 1 systems have figures" in page


def test_report_of_an_unjudged_campaign_says_what_to_do(tmp_path, example):
    campaign = make_campaign(tmp_path, *example, lambda truth, member: truth)
    with pytest.raises(InputError, match="evaluate the campaign first"):
        write_report(campaign, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("record", ["{}", "[]", "3", '{"stores": {}}'])
def test_a_record_that_is_none_means_evaluate_again(reported, tmp_path, record):
    campaign, _ = reported
    path = campaign.path("metrics.json")
    before = path.read_text()
    try:
        path.write_text(record)
        with pytest.raises(InputError, match="evaluate the campaign again"):
            write_report(campaign, tmp_path / "report.html")
    finally:
        path.write_text(before)


EVIL = "</script></style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """Every element with the names of its attributes."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [key for key, _ in attrs]))


def elements(text: str) -> list[tuple[str, list[str]]]:
    parser = Elements()
    parser.feed(text)
    return parser.found


def marked(record, seen: set[str]):
    """A copy of a record whose every text is markup; texts that decide what is shown stay."""
    if isinstance(record, dict):
        return {key: it if key in ("row", "by") else marked(it, seen) for key, it in record.items()}
    if isinstance(record, list):
        return [marked(item, seen) for item in record]
    if isinstance(record, str):
        seen.add(record)
        return record + EVIL
    return record


def test_no_text_of_a_record_becomes_markup(reported):
    campaign, _ = reported
    seen: set[str] = set()
    record = marked(json.loads(campaign.path("metrics.json").read_text()), seen)
    record["campaign"] = record["rungs"][0]["resolution"] = EVIL
    figure = FigureOnPage(EVIL, EVIL, EVIL, b"\x89PNG" + bytes(20))
    section = Section(EVIL, EVIL, EVIL, [figure, ViewOnPage(EVIL, EVIL, "{}")])
    text = page(record, [section], section, marked(ELBO, seen))
    assert len(seen) > 15
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert len(re.findall(r"<script", text)) == 3
    assert len(re.findall(r"<style", text)) == 1
    found = elements(text)
    assert {tag for tag, _ in found} <= {tag for tag, _ in elements(reported[1])}
    assert not [key for _, keys in found for key in keys if key.startswith("on")]


def test_data_that_could_end_their_element_are_refused():
    with pytest.raises(ValueError, match="end their element"):
        page_module._section(Section("a", "t", "", [ViewOnPage("t", "", "</script>")]))


def test_the_browser_is_told_the_hashes_of_style_and_script(reported):
    """And there is nothing inline beside them: no handler, no style attribute, no javascript: link."""
    _, text = reported
    policy = html.unescape(re.search(r'Security-Policy" content="([^"]*)"', text)[1])
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    outside = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"\s(on\w+|style)=|javascript:", outside)
