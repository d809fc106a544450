"""Which checkpoint a training goes on from: the newest that is whole, and of this training."""

import json

import pytest

from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.parsing import json_digest
from hpcbackmap.training.checkpoints.checkpoints import (
    Checkpoints,
    Progress,
    last_published,
    verified_manifest,
)
from hpcbackmap.training.checkpoints.saving import file_record

IDENTITY = {"stage": "ca-fg", "train": {"seed": 0}}


@pytest.fixture
def kept(tmp_path) -> Checkpoints:
    """Steps 3, 6 and 9 were published, each with a file; the best weights are of step 6."""
    kept = Checkpoints(tmp_path / "checkpoints", IDENTITY, frozenset())
    for step in (3, 6, 9):
        place = kept.prepare(f"step_{step}") or kept.folder / f"step_{step}"
        (place / "state.pt").write_bytes(bytes(step))
        best = {"weights": "best_6.safetensors"} if step > 3 else None
        (kept.folder / "best_6.safetensors").write_bytes(b"weights")
        files = {"state.pt": file_record(place / "state.pt")}
        kept.publish(f"step_{step}", files, Progress(step=step, best=best), 1, {"stage": "ca-fg"})
    return kept


def test_the_newest_and_the_one_before_are_kept(kept):
    assert kept.newest()["progress"]["step"] == 9
    assert last_published(kept.folder) == "step_9"
    there = {path.name for path in kept.folder.iterdir()}
    assert there == {"step_6", "step_9", "best_6.safetensors", "latest.json"}


@pytest.mark.parametrize("spoil", ["shorten", "change", "lose", "add"])
def test_a_checkpoint_that_is_not_what_was_written_is_passed_over(kept, caplog, spoil):
    path = kept.folder / "step_9" / "state.pt"
    if spoil == "add":
        path.with_name("more.pt").write_bytes(b"x")
    elif spoil == "lose":
        path.unlink()
    else:
        path.write_bytes(b"x" if spoil == "shorten" else b"x" * 9)
    assert kept.newest()["progress"]["step"] == 6
    assert "checkpoint step_9 is damaged" in caplog.text
    with pytest.raises(InputError, match="step_9: damaged checkpoint"):
        verified_manifest(path.parent)


def test_another_training_is_named_and_none_that_is_whole_is_told(kept):
    other = Checkpoints(kept.folder, {"stage": "ca-fg", "train": {"seed": 1}}, frozenset())
    with pytest.raises(ConfigError, match=r"step_9: .*train.seed was 0, is 1"):
        other.newest()
    free = Checkpoints(kept.folder, other.identity, frozenset({"train.seed"}))
    assert free.newest()["progress"]["step"] == 9
    (kept.folder / "best_6.safetensors").unlink()
    with pytest.raises(InputError, match="no intact checkpoint is left"):
        kept.newest()


@pytest.mark.parametrize(
    ("key", "value"),
    [("identity", None), ("versions", []), ("stage", 3), ("files", []), ("world_size", "2")],
)
def test_a_manifest_whose_parts_are_of_another_type_is_damaged(kept, key, value):
    """Although its digest is right: an old one has none, and a program may have written it."""
    rewrite(kept.folder / "step_9" / "manifest.json", lambda manifest: manifest | {key: value})
    assert kept.newest()["progress"]["step"] == 6


@pytest.mark.parametrize("best", [True, {}, {"weights": None}])
def test_best_weights_that_have_no_file_are_damaged(kept, best):
    def change(manifest):
        return manifest | {"progress": manifest["progress"] | {"best": best}}

    rewrite(kept.folder / "step_9" / "manifest.json", change)
    assert kept.newest()["progress"]["step"] == 6


def rewrite(path, change) -> None:
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    changed = change(manifest)
    path.write_text(json.dumps(changed | {"sha256": json_digest(changed)}))
