"""Memory of a training, measured: shares of ZeRO, activation checkpointing, bf16; and no compiler is called."""

import csv
import json
import os
import subprocess
import sys

import pytest
from runs import STAGE, assert_close, finish_two
from typer.testing import CliRunner

from hpcbackmap.cli.app import app
from hpcbackmap.config.load import load_campaign
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.training.memory import RankBytes, stage_memory

PLAIN, AGAIN, HALF = "plain", "checkpointed", "bf16"
EVERY_WAY = f"""
import json
import sys

import torch

from hpcbackmap.config.load import load_campaign
from hpcbackmap.training.memory import optimizer_bytes
from hpcbackmap.training.run import Run
from hpcbackmap.training.trainer import train

to_the_end = Run.to_the_end


def measured(self, stop):
    to_the_end(self, stop)
    own = {{"optimizer": optimizer_bytes(self.engine)}}
    if self.train.zero_stage in (1, 2):
        zero = self.engine.optimizer
        flat = [*zero.bit16_groups_flat, *zero.single_partition_of_fp32_groups]
        own["weights"] = sum(it.nbytes for it in flat)
    elif self.train.zero_stage == 3:
        parts = [it.ds_tensor for it in self.engine.module.parameters()]
        own["weights"] = sum(it.nbytes for it in parts)
    ranks = [None] * self.world.size
    torch.distributed.all_gather_object(ranks, own)
    sizes = [getattr(it, "ds_numel", it.numel()) for it in self.engine.module.parameters()]
    if self.world.rank == 0:
        (self.folder / "bytes.json").write_text(json.dumps({{"sizes": sizes, "ranks": ranks}}))


Run.to_the_end = measured
ways = {{
    "{PLAIN}": [],
    "{AGAIN}": ["activation_checkpointing=true"],
    "{HALF}": ["activation_checkpointing=true", "precision=bf16"],
}}
campaign, *overrides = [word for word in sys.argv[1:] if word not in ("--stage", "{STAGE}")]
table, cut_all, genzprot, workdir = (overrides.pop() for _ in range(4))
for stage, zero, way in json.loads(table):
    keys = [f"stages.{{stage}}.train.{{it}}" for it in (*ways[way], f"zero_stage={{zero}}")]
    here = [*overrides, genzprot, *keys, f"{{workdir}}/{{zero}}/{{way}}"]
    train(load_campaign(campaign, here), stage, cut_all)
"""
GENZPROT = (
    "stages.ca-fg={model: {kind: genzprot, width: 16, layers: 2, coarse_noise: 0.01}, "
    "train: {batch_size: 8, max_steps: 3, log_every: 1, validation_frames: 12}}"
)


TABLE = [
    *((STAGE, zero, PLAIN) for zero in range(4)),
    (STAGE, 3, AGAIN),
    (STAGE, 2, HALF),
    (STAGE, 3, HALF),
    ("ca-fg", 3, PLAIN),
    ("ca-fg", 3, AGAIN),
]
REST = [
    *((STAGE, zero, way) for zero in range(4) for way in (AGAIN, HALF)),
    *(("ca-fg", zero, way) for zero in range(3) for way in (PLAIN, AGAIN, HALF)),
    ("ca-fg", 3, HALF),
]


def train_all(table, example, folder):
    """Short trainings on two ranks, ``<zero stage>/<way>``; ZeRO 3 leaves no parameter whole."""
    cut_all, program = folder / "deepspeed.json", folder / "every_way.py"
    cut_all.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    program.write_text(EVERY_WAY)
    found = [*example, f"stages.{STAGE}.train.max_steps=3"]
    words = [GENZPROT, str(cut_all), json.dumps(table)]
    finish_two(found, folder, *words, program=str(program), timeout=600)


@pytest.fixture(scope="module")
def every_way(example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("every_way")
    train_all(TABLE, example, folder)
    return folder


def measured(folder, stage=STAGE):
    return json.loads((folder / "stages" / stage / "bytes.json").read_text())


@pytest.mark.parametrize("zero", range(4))
def test_ranks_hold_the_bytes_that_inspect_shows(every_way, zero):
    """And each of two ranks half of the optimiser state under ZeRO 1 to 3, but for the padding."""
    record = measured(every_way / str(zero) / PLAIN)
    sizes, ranks = record["sizes"], record["ranks"]
    expected = RankBytes.of(sizes, zero, 2)
    assert [rank["optimizer"] for rank in ranks] == [expected.optimizer] * 2
    if zero in (1, 2):
        assert [rank["weights"] for rank in ranks] == [expected.weights] * 2
    elif zero == 3:
        whole = 4 * sum(sizes)
        assert [rank["weights"] for rank in ranks] == [expected.weights - whole] * 2
    if zero:
        moments, padding = 8 * sum(sizes), 8 * len(sizes) if zero == 3 else 8 * 3
        assert moments <= 2 * (expected.optimizer - 4) <= moments + padding


def losses(folder, zero, way, stage=STAGE):
    """Loss by kind and step."""
    with (folder / str(zero) / way / "stages" / stage / "metrics.csv").open(newline="") as file:
        return {(row["kind"], int(row["step"])): float(row["loss"]) for row in csv.DictReader(file)}


def check(folder, table):
    """Activation checkpointing changes no bit, bf16 stays near fp32."""
    for stage, zero, way in table:
        found, plain = losses(folder, zero, way, stage), losses(folder, zero, PLAIN, stage)
        assert len(found) >= 4
        if way == HALF:
            assert found != plain
            assert_close(found, plain, 0.02)
        else:
            assert found == plain


def test_activation_checkpointing_and_bf16_under_zero(every_way):
    check(every_way, TABLE)


@pytest.mark.slow
def test_activation_checkpointing_and_bf16_under_every_zero_stage(every_way, example):
    train_all(REST, example, every_way)
    check(every_way, REST)


def test_inspect_shows_what_a_stage_takes(example):
    """On 1, 2, 4 and 8 ranks for a batch of 8 frames; 16 ranks cannot share it."""
    run = CliRunner().invoke(app, ["inspect", *example, "--stage", STAGE, "--json"])
    assert run.exit_code == 0, run.output
    record = json.loads(run.stdout)
    assert {row["ranks"] for row in record["ranks"]} == {1, 2, 4, 8}
    by_key = {(row["ranks"], row["zero_stage"]): row for row in record["ranks"]}
    assert by_key[1, 0]["weights"] == 4 * record["parameters"]
    assert by_key[8, 0]["activations"] == pytest.approx(by_key[1, 0]["activations"] / 8, abs=8)
    for row in record["ranks"]:
        parts = ("weights", "gradients", "optimizer", "activations")
        assert row["total"] == sum(row[part] for part in parts)
    per_frame = record["activation_bytes_per_frame"]
    assert 0 < per_frame["checkpointed"] <= per_frame["kept"]
    assert record["advice"].startswith("ZeRO is not needed")

    text = CliRunner().invoke(app, ["inspect", *example, "--stage", STAGE]).stdout
    assert record["advice"] in text
    assert f"{record['parameters']:,} parameters" in text


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        ("ucg5", "name=x", "--stage ucg5: not a stage to train; there are: ca-fg, ucg5-ca"),
        (STAGE, f"stages.{STAGE}.train.accumulation=3", "use a multiple of 3"),
        (STAGE, "store.path=nowhere", "no such frame store"),
    ],
)
def test_stage_that_cannot_be_inspected_is_told(example, stage, override, message):
    campaign = load_campaign(example[0], [*example[1:], override])
    with pytest.raises((ConfigError, InputError), match=message):
        stage_memory(campaign, stage)


COMPILER_IS_NOT_LOADED = """
import sys

from hpcbackmap.cli.app import main

try:
    main(["train", *sys.argv[1:]])
finally:
    print("torch._inductor.compile_fx" in sys.modules)
"""


def test_no_compiler_is_called(example, tmp_path):
    """A training step with nothing but Python on the path; DeepSpeed would build into the empty folder.

    Nor is torch's compiler imported, which takes as long as the rest of torch.
    """
    extensions, nothing = tmp_path / "extensions", tmp_path / "bin"
    extensions.mkdir()
    nothing.mkdir()
    environ = {
        key: value for key, value in os.environ.items() if key not in ("CC", "CXX", "CUDA_HOME")
    }
    environ |= {
        "PATH": str(nothing),
        "TORCH_EXTENSIONS_DIR": str(extensions),
        "OMP_NUM_THREADS": "1",
    }
    program = tmp_path / "train.py"
    program.write_text(COMPILER_IS_NOT_LOADED)
    done = subprocess.run(
        [sys.executable, program, *example, "--stage", STAGE, f"workdir={tmp_path}"]
        + [f"stages.{STAGE}.train.max_steps=1"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")
    assert list(extensions.iterdir()) == []
