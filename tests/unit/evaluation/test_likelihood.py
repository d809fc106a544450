"""`hpcbackmap evaluate --elbo`: its table, and the detection of latents out of use."""

import json
import logging

import numpy as np
import pytest
import torch
from tiny_campaign import FRAMES, HELD_OUT, make_campaign

from hpcbackmap.cli.app import main
from hpcbackmap.config.load import load_campaign
from hpcbackmap.evaluation import likelihood
from hpcbackmap.evaluation.elbo_table import elbo_lines
from hpcbackmap.evaluation.likelihood import evaluate_elbo, stage_nats
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import Normal, collate
from hpcbackmap.stages.collapse import collapse
from hpcbackmap.stages.ladder_volume import ladder_log_volume
from hpcbackmap.training.feed import StageInputs
from hpcbackmap.training.validation import warn_of_collapse


@pytest.fixture(scope="module")
def two_step(tmp_path_factory):
    return make_campaign(tmp_path_factory.mktemp("two"), ["fg", "com", "ucg:3"], ["first"])


def stage_and_frames(campaign, ladders, levels, rung):
    stage = load_artifact(campaign.path(f"stages/{rung}/artifact"))
    system = collate([stage.describe(ladders["first"])])
    held = [torch.from_numpy(levels["first"][r][-HELD_OUT:]) for r in (stage.fine, stage.coarse)]
    return stage, held, system


@pytest.mark.trains
def test_table_of_a_two_step_campaign(two_step, capsys):
    """Against ELBOs with the closed-form KL and other noise, and their sum less the log volume."""
    campaign, ladders, levels = two_step
    main_ok(["evaluate", f"{campaign.workdir}/campaign.yaml", "--elbo", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(campaign.path("elbo.json").read_text())
    assert [row["stage"] for row in record["rows"]] == ["com-fg", "ucg3-com"]
    ladder = ladders["first"]
    for row in record["rows"]:
        stage, held, system = stage_and_frames(campaign, ladders, levels, row["stage"])
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            many = [
                stage.elbo(
                    *held, system, torch.randn(HELD_OUT, held[1].shape[1], 2, generator=generator)
                )
                for _ in range(120)
            ]
        elbo = float(torch.stack([one.total for one in many]).mean())
        assert row["elbo_nats_per_frame"] == pytest.approx(elbo, abs=0.4)
        assert row["kl_nats_per_frame"] == pytest.approx(float(many[0].kl.mean()), rel=1e-4)
        particles = ladder.n_particles(stage.fine)
        assert row["elbo_nats_per_particle"] == pytest.approx(
            row["elbo_nats_per_frame"] / particles
        )
        assert row["iwae_nats_per_frame"] > row["elbo_nats_per_frame"]
        low, high = row["elbo_interval_95"]
        assert low < row["elbo_nats_per_frame"] < high
        assert row["frames"] == HELD_OUT
        assert row["latent_units"] == 2
        assert row["active_units_per_bead"] > 1
        assert row["collapse"] is None
    for bound in ("elbo", "iwae"):
        key = f"{bound}_nats_per_frame"
        total = sum(row[key] for row in record["rows"]) - ladder_log_volume(ladder).sum()
        assert record["ladder"][key] == pytest.approx(total)
    assert ladder_log_volume(ladder).sum() != 0
    assert record["ladder"]["elbo_nats_per_particle"] == pytest.approx(
        record["ladder"]["elbo_nats_per_frame"] / ladder.topology.n_atoms
    )


@pytest.mark.trains
def test_numbers_do_not_depend_on_the_blocks_of_frames(two_step, monkeypatch):
    campaign, ladders, _ = two_step
    capped = campaign.evaluate.model_copy(update={"max_frames": 4})
    campaign = campaign.model_copy(update={"evaluate": capped})
    whole = evaluate_elbo(campaign, LocalComm())
    monkeypatch.setattr(likelihood, "BLOCK_ATOMS", 3 * ladders["first"].topology.n_atoms)
    pieces = evaluate_elbo(campaign, LocalComm())
    for one, other in zip(whole["rows"], pieces["rows"], strict=True):
        for key in ("elbo_nats_per_frame", "iwae_nats_per_frame", "active_units_per_bead"):
            assert one[key] == pytest.approx(other[key], rel=1e-5)


def test_frames_are_capped_and_the_table_is_readable(two_step, capsys):
    campaign, *_ = two_step
    main_ok(["evaluate", f"{campaign.workdir}/campaign.yaml", "--elbo", "--frames", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(campaign.path("elbo.json").read_text())["rows"][0]["frames"] == 3
    assert [line.split()[0] for line in lines[1:4]] == ["com-fg", "ucg3-com", "ladder"]
    assert "3 held-out frames" in lines[-1]


@pytest.mark.trains
def test_several_systems_are_weighed_by_their_frames_and_particles(tmp_path):
    campaign, ladders, _ = make_campaign(
        tmp_path, ["fg", "ca", "ucg:3"], ["first", "second"], kind="trace"
    )
    record = evaluate_elbo(campaign, LocalComm())
    assert [row["stage"] for row in record["rows"]] == ["ca-fg", "ucg3-ca"]
    for row in record["rows"]:
        assert list(row["systems"]) == ["first", "second"]
        assert row["frames"] == 2 * HELD_OUT
        values = [row["systems"][name]["elbo_nats_per_frame"] for name in ladders]
        fine = row["stage"].partition("-")[2]
        particles = [ladder.n_particles(fine) for ladder in ladders.values()]
        assert row["elbo_nats_per_frame"] == pytest.approx(np.mean(values))
        assert row["elbo_nats_per_particle"] == pytest.approx(sum(values) / sum(particles))
    total = sum(row["elbo_nats_per_frame"] for row in record["rows"])
    total -= np.mean([ladder_log_volume(ladder).sum() for ladder in ladders.values()])
    assert record["ladder"]["elbo_nats_per_frame"] == pytest.approx(total)
    trace = record["rows"][1]
    assert trace["iwae_nats_per_frame"] > trace["elbo_nats_per_frame"]


def test_ladder_with_a_missing_stage_has_no_total(tmp_path):
    campaign, *_ = make_campaign(tmp_path, ["fg", "com", "ucg:3"], ["first"], ["ucg3-com"])
    record = evaluate_elbo(campaign, LocalComm())
    assert [row["stage"] for row in record["rows"]] == ["ucg3-com"]
    assert record["ladder"] is None
    assert "no total" in elbo_lines(record)[-2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--elbo", "stages.com-fg.artifact=gone"], 3, "gone: no trained stage here; train com-fg"),
        (["--elbo", "split.test=0"], 3, "holds out no test frames"),
        (["--elbo", "stages={}"], 2, "the campaign has none"),
        (["--elbo", "--truth", "a.pdb", "--generated", "b.pdb"], 2, "need a campaign"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(two_step, capsys, arguments, code, message):
    campaign, *_ = two_step
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", f"{campaign.workdir}/campaign.yaml", *arguments])
    assert ended.value.code == code
    assert message in capsys.readouterr().err


def test_stage_that_gives_no_numbers_is_named_with_the_frame(tmp_path):
    campaign, *_ = make_campaign(tmp_path, ["fg", "ucg:3"], ["first"])
    stage = load_artifact(campaign.path("stages/ucg3-fg/artifact"))
    for parameter in stage.parameters():
        parameter.data.fill_(1e30)
    save_artifact(stage, campaign.path("stages/ucg3-fg/artifact"), {})
    with pytest.raises(
        likelihood.InputError, match=f"ucg3-fg: its ELBO of frame {FRAMES - HELD_OUT} of system fi"
    ):
        evaluate_elbo(campaign, LocalComm())


def test_rules_of_collapse():
    assert collapse(active=0.0, spread=1.0, error=1.0) == "posterior"
    assert collapse(active=3.0, spread=0.05, error=1.0) == "prior"
    assert collapse(active=3.0, spread=0.5, error=1.0) is None


@pytest.mark.parametrize("planted", [None, "prior", "posterior"])
def test_planted_collapse_is_found_in_the_table_and_after_training(two_step, planted, caplog):
    """Prior: its standard deviation pressed down. Posterior: the encoder made to repeat the prior."""
    stage, held, system = stage_and_frames(*two_step, "ucg3-com")
    honest = stage._prior
    if planted == "prior":
        stage._prior = lambda context: Normal(
            honest(context).mean, torch.full_like(honest(context).mean, -5.0)
        )
    elif planted == "posterior":
        stage._posterior = lambda context, *_: honest(context)
    nats = stage_nats(stage, *held, system, list(range(HELD_OUT)), seed=0, samples=2)
    information = torch.from_numpy(nats.information / HELD_OUT)
    active = float((information > 0.01).sum(-1).double().mean())
    assert (active == 0) == (planted == "posterior")
    spread, error = np.sqrt(nats.spread.mean()), np.sqrt(nats.error.mean())
    assert collapse(active, spread, error) == planted
    inputs = StageInputs(*held, system, torch.zeros(0), HELD_OUT)
    with caplog.at_level(logging.WARNING):
        warn_of_collapse(stage, inputs, {"active_units": active}, seed=0)
    said = [record.getMessage() for record in caplog.records]
    assert (said == []) if planted is None else (f"ucg3-com: {planted} collapse" in said[0])


def test_spread_of_members_is_their_variance(two_step):
    """Over pairs of members: as the variance of many members drawn otherwise; error of the mode by hand."""
    stage, held, system = stage_and_frames(*two_step, "ucg3-com")
    frames = list(range(2000))
    many = [x[:1].expand(len(frames), -1, -1) for x in held]
    nats = stage_nats(stage, *many, system, frames, seed=0, samples=1)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(len(frames), held[1].shape[1], stage.noise_width, generator=generator)
    with torch.no_grad():
        members = stage.sample(many[1], system, noise)
        mode = stage.mode(many[1][:1], system)
    expected = float(members.var(0).sum(-1).mean())
    assert expected > 1e-4
    assert nats.spread.mean() == pytest.approx(expected, rel=0.05)
    error = float((mode - held[0][:1]).square().sum(-1).mean())
    assert nats.error[0] == pytest.approx(error, rel=1e-4)


def test_free_bits_and_warm_up_change_the_training_loss_only(two_step):
    stage, held, system = stage_and_frames(*two_step, "ucg3-com")
    noise = torch.zeros(HELD_OUT, 3, stage.elbo_noise)
    settings = {"free_bits": 1e4, "kl_warmup_steps": 4, "geometry_weight": 0.0}
    stage.config = stage.config.model_copy(update=settings)
    with torch.no_grad():
        plain = stage.eval().loss(*held, system, noise)
    freedom = float(system.freedom.sum())
    elbo = plain["log_likelihood"] - plain["kl"]
    assert float(plain["loss"]) == pytest.approx(-float(elbo) / freedom, rel=1e-5)
    stage.train()
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        stage.at_step(step)
        terms = stage.loss(*held, system, noise)
        assert terms["kl"].item() == pytest.approx(float(plain["kl"]))
        expected = (share * 3 * 1e4 - terms["log_likelihood"].item()) / freedom
        assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)
    with_kl, without = (
        torch.autograd.grad(value, list(stage.parameters()), retain_graph=True, allow_unused=True)
        for value in (terms["loss"], -terms["log_likelihood"] / freedom)
    )
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in with_kl)
    for one, other in zip(with_kl, without, strict=True):
        if one is not None:
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def main_ok(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def test_campaign_keys_are_read(two_step):
    campaign, *_ = two_step
    again = load_campaign(
        f"{campaign.workdir}/campaign.yaml", ["stages.com-fg.model.kl_warmup_steps=500"]
    )
    assert again.stages["com-fg"].model.kl_warmup_steps == 500
    assert again.stages["com-fg"].model.free_bits == 0
