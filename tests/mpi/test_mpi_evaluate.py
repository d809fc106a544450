"""Ranks judge together: the record does not depend on their number."""

import json

import numpy as np
import pytest
from judged_campaign import load_example, make_campaign
from test_mpi_ingest import MPIRUN, mpirun

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun")

PROGRAM = """
import sys
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation import campaign as evaluation
from hpcbackmap.runtime.mpi import get_comm

evaluation.BLOCK_BYTES = int(sys.argv[2])
campaign = Campaign.model_validate_json(open(sys.argv[1]).read())
evaluation.evaluate_campaign(campaign, get_comm())
"""


def noisy(truth, member):
    rng = np.random.default_rng(member)
    return truth + rng.normal(0, 0.02, truth.shape)


def test_the_record_is_the_same_for_1_2_and_3_ranks(example_dir, tmp_path):
    topology, positions = load_example(example_dir, frames=60)
    campaign = make_campaign(tmp_path, topology, positions, noisy)
    (tmp_path / "campaign.json").write_text(campaign.model_dump_json())
    (tmp_path / "judge.py").write_text(PROGRAM)
    records = []
    for ranks in (1, 2, 3):
        program = (str(tmp_path / "judge.py"), str(tmp_path / "campaign.json"), "20000")
        result = mpirun(ranks, *program)
        assert result.returncode == 0, result.stderr
        records.append((tmp_path / "metrics.json").read_bytes())
    assert records[0] == records[1] == records[2]
    assert json.loads(records[0])["bootstrap_blocks"] == 4
