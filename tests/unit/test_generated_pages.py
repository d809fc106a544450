"""The pages of commands, keys and rooms say what the code says."""

import re
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_pages_made_from_the_code_are_current():
    command = [sys.executable, str(REPOSITORY / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_and_key_has_its_sentence():
    for name in ("cli", "config"):
        text = (REPOSITORY / "docs" / "reference" / f"{name}.md").read_text()
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert len(rows) > 60
        assert [row for row in rows if not row.split(" | ")[-1].strip(" |")] == []


def test_the_page_of_the_architecture_names_files_that_are_there():
    """And of the stage kinds all of them."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"[\w/]+\.py\b", text))
    files = [str(path) for path in REPOSITORY.glob("[!.]*/**/*.py")]
    assert {name for name in named if not any(path.endswith("/" + name) for path in files)} == set()
    names = {name.rpartition("/")[2] for name in named}
    for kind in ("genzprot", "trace", "cgvae", "calpha"):
        folder = REPOSITORY / "hpcbackmap" / "stages" / kind
        assert {path.name for path in folder.glob("[!_]*.py")} - names == set()
