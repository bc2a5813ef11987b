"""Scores while training: curves, the best state kept, and a training that takes no notice."""

import json
import os
from pathlib import Path

import conftest
import pytest
import torch

from t2i import build, checkpoint, config, evaluation
from t2i.errors import UserError
from t2i.model import load_model

ROOT = Path(__file__).parents[1]
TINY = [
    "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128", "generator.channel_max=8",
    "discriminator.channel_max=8", "generator.latent_dim=8",
    "generator.style_dim=8", "generator.mapping_layers=1", "train.batch=4", "log.every=1", "log.grid=2",
    "log.snapshot_kimg=0", "data.workers=0", "loss.path_length.weight=0",
]  # fmt: skip


@pytest.fixture
def arguments(tiny_shards, tmp_path):
    judged = ["eval.metrics=[probe,swd]", "eval.samples=8", "eval.best=swd", f"eval.reference={tiny_shards}"]
    return [*TINY, *judged, f"data.shards={tiny_shards}", f"runs={tmp_path / 'runs'}"]


def run_here(arguments, monkeypatch, *more):
    """Trains in this process and returns the run's folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one thread: cores may be busy with other tests
    conftest.train_here(monkeypatch, str(ROOT / "configs" / "scenes.yaml"), *arguments, *more)
    settings = config.load(None, [*arguments, *more])
    return Path(settings.runs) / settings.name


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_with_evaluation_trains_as_without_also_when_resumed(arguments, monkeypatch):
    plain = run_here(arguments, monkeypatch, "name=plain", "train.kimg=0.024")
    for kimg in (0.012, 0.024):  # three steps, then a new start with three more
        judged = run_here(arguments, monkeypatch, "name=judged", f"train.kimg={kimg}", "eval.every=0.008")
    a, b = (torch.load(checkpoint.folders(p)[-1] / "state.pt", weights_only=True) for p in (plain, judged))
    for key in ("G", "D", "G_ema"):
        assert all(torch.equal(a[key][k], b[key][k]) for k in a[key]), key
    assert torch.equal(a["random"]["torch"], b["random"]["torch"])
    evaluated = [line for line in lines(judged) if "eval/swd" in line]
    assert [line["step"] for line in evaluated] == [2, 3, 4, 6]  # every two steps, and the end of each start
    assert {"eval/swd", "eval/swd_16", "eval/probe_object", "eval/probe_both"} <= set(evaluated[0])
    assert not [line for line in lines(plain) if "eval/swd" in line]
    assert not (plain / "best").exists()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(judged / "tensorboard"))
    board.Reload()
    assert board.Scalars("eval/swd")[-1].step == 24

    best = json.loads((judged / "best" / evaluation.SCORE).read_text())
    lowest = min(evaluated, key=lambda line: line["eval/swd"])
    assert (best["step"], best["scores"]["swd"]) == (lowest["step"], lowest["eval/swd"])
    kept = load_model(judged / "best")
    assert kept.kimg == lowest["kimg"]
    assert kept("a red bus").shape == (1, 3, 16, 16)


def test_pictures_are_judged_once_they_have_grown(arguments, monkeypatch):
    grows = "stages=[{kimg: 0, resolution: 8}, {kimg: 0.008, fade_kimg: 0.008, resolution: 16}]"
    folder = run_here(arguments, monkeypatch, "name=growing", "train.kimg=0.016", "eval.every=0.004", grows)
    assert [line["step"] for line in lines(folder) if "eval/swd" in line] == [3, 4]
    assert load_model(folder / "best")("a red bus").shape == (1, 3, 16, 16)


@pytest.fixture
def judge(arguments, tmp_path):
    settings = config.load(None, [*arguments, "eval.every=1"])
    run = build.build(settings, torch.device("cpu"))
    return run, evaluation.prepare(run, tmp_path)


def test_what_a_reader_must_know_is_said_at_the_start(arguments, tmp_path, caplog):
    settings = config.load(
        None, [*arguments, "eval.every=1", "eval.metrics=[clip_score]", "eval.networks.clip=scenes-clip"]
    )
    settings.eval.best = ""
    evaluation.prepare(build.build(settings, torch.device("cpu")), tmp_path)
    assert "leakage: 40 of the 40 reference pictures are in the training shards" in caplog.text
    assert "scenes-clip was used in training" in caplog.text


def test_the_better_state_is_kept_whichever_way_better_is(judge, tmp_path):
    run, it = judge
    step = lambda: json.loads((tmp_path / "best" / evaluation.SCORE).read_text())["step"]
    for run.step, value, expected in ((1, 9.0, 1), (2, 9.5, 1), (3, float("nan"), 1), (4, 8.0, 4), (5, 8.0, 4)):
        it.keep(run, {"swd": value})
        assert step() == expected
    it.best = "probe_both"  # another score has no best yet; higher is better
    for run.step, value, expected in ((6, 0.5, 6), (7, 0.4, 6), (8, 0.6, 8)):
        it.keep(run, {"probe_both": value})
        assert step() == expected
    (tmp_path / "best").rename(tmp_path / ".best-before")  # as a kill between its two renames leaves it
    run.step = 9
    it.keep(run, {"probe_both": 0.1})
    assert step() == 8
    assert not list(tmp_path.glob(".best*"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("eval.reference=''", "eval.every needs shards"),
        ("eval.reference=nowhere", "nowhere"),
        ("eval.samples=41", "has 40"),
        ("eval.metrics=[fids]", "did you mean 'fid'"),
        ("eval.metrics=[fid]", "eval.metrics fid: no Inception weights at .*eval.networks.inception"),
        ("eval.best=sdw", "did you mean 'swd'"),
        ("eval.networks.lpips_alx=x", "eval.networks.lpips_alx: no such setting.*did you mean 'lpips_alex'"),
        ("eval.networks.preprocessing=cafe", "eval.networks.preprocessing cafe: .*did you mean 'caffe'"),
        ("eval.every=-1", "0 \\(never\\)"),
    ],
)
def test_mistakes_stop_a_run_before_it_starts(arguments, monkeypatch, tmp_path, override, said):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=said) as error:
        run_here(arguments, monkeypatch, "eval.every=1", "train.kimg=0.004", override)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs" / "scenes" / "metrics.jsonl").exists()
