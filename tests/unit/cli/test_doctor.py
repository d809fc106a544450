"""What `doctor` says about a machine: what is here, and what would not work."""

import json

from typer.testing import CliRunner

from hpcbackmap.cli import doctor as module
from hpcbackmap.cli.app import app
from hpcbackmap.runtime.errors import InputError


def test_it_names_versions_devices_and_the_shipped_stages(monkeypatch):
    monkeypatch.setattr(module, "_on_two_ranks", lambda mpirun: "2")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["usable"]
    assert found["libraries"]["torch"]
    assert "ca-fg" in found["shipped stages"]
    assert "core(s)" in found["devices"]["cpu"]


def test_mpirun_of_another_mpi_is_a_problem(monkeypatch):
    monkeypatch.setattr(module, "_said", lambda command: "1 Some MPI 1.0")
    monkeypatch.setattr(module, "_mpirun", lambda: "/usr/bin/mpirun")
    monkeypatch.setattr(module, "_on_two_ranks", lambda mpirun: "1")
    problems = []
    module._mpi(problems)
    assert len(problems) == 1
    assert "different MPIs" in problems[0]


def test_a_damaged_stage_ends_it_with_its_name(monkeypatch):
    def damaged(folder):
        raise InputError(f"{folder}: damaged artifact")

    monkeypatch.setattr("hpcbackmap.stages.artifact.load_artifact", damaged)
    monkeypatch.setattr(module, "_on_two_ranks", lambda mpirun: "2")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 5
    assert "shipped stage ca-fg" in result.stdout
