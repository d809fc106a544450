"""The pages of commands, keys and rooms say what the code says."""

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
