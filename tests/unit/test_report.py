"""The report: one file that needs nothing else, and figures that exist."""

import base64
import re

import pytest
from judged_campaign import load_example, make_campaign, write_training_records

from hpcbackmap.errors import InputError
from hpcbackmap.evaluation.evaluate import evaluate_campaign
from hpcbackmap.evaluation.report import write_report
from hpcbackmap.mpi import LocalComm

FIGURES = {
    "ladder", "members", "residue_rmsd", "ramachandran", "chi1", "bond_lengths",
    "radius_of_gyration", "training",
}  # fmt: skip


@pytest.fixture(scope="module")
def reported(tmp_path_factory, example_dir):
    folder = tmp_path_factory.mktemp("campaign")
    topology, positions = load_example(example_dir)
    campaign = make_campaign(folder, topology, positions, lambda truth, member: truth)
    evaluate_campaign(campaign, LocalComm())
    write_training_records(campaign)
    output = write_report(campaign, folder / "out" / "report.html")
    return campaign, output.read_text()


def test_report_is_one_file_without_network(reported):
    _, page = reported
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    outside = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link", outside)
    assert set(re.findall(r'src="([^"]*)"', outside)) == {""}


def test_report_shows_the_numbers_and_every_figure(reported):
    campaign, page = reported
    assert "prior samples, held-out frames" in page.lower()
    for heading in (
        "This model",
        "Nearest training frame",
        "Bead centre",
        "Truth",
        "On the way: ca",
    ):
        assert heading in page
    embedded = [base64.b64decode(data) for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", page)]
    written = {path.stem: path.read_bytes() for path in campaign.path("figures").glob("*.png")}
    assert set(written) == FIGURES
    assert sorted(embedded) == sorted(written.values())
    assert all(image.startswith(b"\x89PNG") for image in embedded)


def test_report_of_an_unjudged_campaign_says_what_to_do(tmp_path, example_dir):
    topology, positions = load_example(example_dir)
    campaign = make_campaign(tmp_path, topology, positions, lambda truth, member: truth)
    with pytest.raises(InputError, match="evaluate the campaign first"):
        write_report(campaign, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
