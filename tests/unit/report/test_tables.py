"""The tables of a report: every measure once, under its topic, with direction and best answer."""

import re

import pytest
from markupsafe import escape

from hpcbackmap.metrics.registry import METRICS, Metric, metric
from hpcbackmap.report import tables
from hpcbackmap.report.page import template

HIGHER = {
    "lddt", "lddt_ca", "contacts_recovered_percent", "bond_graph_exact_percent", "bond_fraction_auc",
    "secondary_structure_percent", "helix_recovered_percent", "chi1_right_percent",
    "chi12_right_percent",
}  # fmt: skip
"""Of the measures that compare with the truth, those where more is better."""


PARTS = template("parts.html.j2").module


def measures_table(*arguments) -> str:
    return PARTS.measures(tables.measures_table(*arguments))


def metric_table(*arguments) -> str:
    return PARTS.measures(tables.metric_table(*arguments))


def elbo_table(record) -> str:
    return PARTS.bounds(tables.elbo_table(record))


def cell(value, low=None, high=None) -> dict:
    interval = None if low is None else [low, high]
    return {"value": value, "std": None, "interval_95": interval}


def rows(**columns) -> list[dict]:
    """One row of a record for each keyword, with its metrics."""
    return [{"row": name, "label": name, "metrics": found} for name, found in columns.items()]


def line(table: str, item: Metric) -> list[str]:
    """Direction and cells of one measure, each as (class, content)."""
    found = re.search(
        rf'<th scope="row">{re.escape(str(escape(item.label)))}</th>(.*?)</tr>', table
    )
    return re.findall(r'<td class="([^"]*)">(.*?)</td>', found[1])


def best(name: str, **values) -> set[str]:
    """Columns with the star."""
    item = metric(name)
    table = metric_table((item,), rows(**{key: {name: cell(v)} for key, v in values.items()}))
    return {classes.split()[0] for classes, _ in line(table, item) if "best" in classes.split()}


def test_every_measure_stands_once_under_a_topic_of_its_own():
    table = measures_table(METRICS, rows(model={item.name: cell(1.0) for item in METRICS}))
    assert table.count('<th scope="row">') == len(METRICS)
    assert "Other measures" not in table
    before = table[: table.index("Ramachandran divergence")]
    assert re.findall(r"<summary>([^<]*)", before)[-1].strip() == "Backbone torsions"


def test_a_measure_that_no_topic_knows_is_shown_last():
    new = Metric("zeta_angstrom", "Zeta (Å)")
    table = measures_table(
        (new, *METRICS), rows(model={"zeta_angstrom": cell(2.0), "lddt": cell(1)})
    )
    assert table.index("lDDT, heavy atoms") < table.index("Other measures") < table.index("Zeta")


def test_measures_that_nobody_has_leave_no_line_and_no_heading():
    table = measures_table(METRICS, rows(model={"lddt": cell(0.5)}))
    assert table.count('<th scope="row">') == 1
    assert "Clashes" not in table


@pytest.mark.parametrize("item", METRICS, ids=lambda item: item.name)
def test_the_direction_of_every_measure(item):
    (_, text), *_ = line(metric_table((item,), rows(model={item.name: cell(1.0)})), item)
    if item.name == "spread_ratio":
        assert text == "near 1"
    elif not item.compares:
        assert text == "≈ truth"
    else:
        assert text == ("higher ↑" if item.name in HIGHER else "lower ↓")


def test_the_star_goes_to_the_best_answer():
    assert best("rmsd_angstrom", model=1.0, bead_centre=2.0) == {"model"}
    assert best("lddt", model=0.5, bead_centre=0.7) == {"bead_centre"}
    assert best("spread_ratio", model=0.8, bead_centre=1.5) == {"model"}
    assert best("radius_of_gyration_angstrom", model=9.0, bead_centre=7.0, truth=7.5) == {
        "bead_centre"
    }
    assert best("clashes_per_100_residues", model=3.0, bead_centre=0.0, truth=2.5) == {"model"}


def test_there_is_no_star_without_a_contest():
    assert best("rmsd_angstrom", model=1.0) == set()
    assert best("rmsd_angstrom", model=1.001, bead_centre=1.002) == set()
    assert best("rmsd_angstrom", model=1.0, bead_centre=None) == set()
    assert best("radius_of_gyration_angstrom", model=9.0, bead_centre=7.0) == set()


def test_numbers_are_written_for_readers():
    item = metric("rmsd_angstrom")
    shown = {"rmsd_angstrom": cell(-1.234, 1234.5, 2000.0)}
    *_, (_, content) = line(metric_table((item,), rows(model=shown)), item)
    assert content == "−1.23<small>1,234 … 2,000</small>"
    *_, (_, content) = line(
        metric_table((item,), rows(model={item.name: cell(2.0, 2.0, 2.0)})), item
    )
    assert content == "2.00"


def test_labels_are_text_and_not_markup():
    table = metric_table((metric("lddt"),), [rows(model={"lddt": cell(1)})[0] | {"label": "<b>"}])
    assert "<b>" not in table
    assert "&lt;b&gt;" in table


def test_the_elbo_table_has_the_columns_that_are_there_and_the_sum():
    stage = {"stage": "ca-fg", "elbo_nats_per_frame": 10.0, "latent_units": 4, "collapse": None}
    table = elbo_table(
        {"rows": [stage], "ladder": {"stage": "ladder", "elbo_nats_per_frame": 12.5}}
    )
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == [
        "stage", "ELBO, nats per frame", "latent units", "collapse",
    ]  # fmt: skip
    last = re.search(r'<tr class="sum">(.*?)</tr>', table)[1]
    assert "whole ladder" in last
    assert re.findall(r"<td[^>]*>(.*?)</td>", last) == ["12.5", "–", "–"]
