"""Training through its command: what a run writes, kills and resumes, several processes, and what stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import pytest
import safetensors.torch
import torch
from PIL import Image

from t2i import build, checkpoint, config, loop, step
from t2i.config import Config
from t2i.errors import UserError

ROOT = Path(__file__).parents[1]
TINY = [
    *conftest.TINY, "train.batch=4", "log.every=1", "log.grid=2", "log.snapshot_kimg=0.016", "data.workers=0",
    "loss.path_length.weight=2", "loss.path_length.every=2", "loss.r1.every=2",
]  # fmt: skip


@pytest.fixture
def arguments(tiny_shards, tmp_path):
    return [str(ROOT / "configs" / "scenes.yaml"), *TINY, f"data.shards={tiny_shards}", f"runs={tmp_path / 'runs'}"]


def run_here(arguments, monkeypatch, *more):
    """Trains in this process and returns the run's folder."""
    conftest.train_here(monkeypatch, *arguments, *more)
    settings = config.load(arguments[0], [*arguments[1:], *more])
    return Path(settings.runs) / settings.name


def launch(arguments, *more, processes=1):
    """Starts the documented command."""
    command = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    if processes > 1:
        command += ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(ROOT / "t2i" / "train.py"), *arguments, *more],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return safetensors.torch.load_file(checkpoint.folders(folder)[-1] / "generator.safetensors")


def test_a_run_leaves_everything_it_promises(arguments, monkeypatch):
    folder = run_here(arguments, monkeypatch, "train.kimg=0.032", "log.checkpoint_kimg=0.008", "ada.mode=ada")
    assert config.load(folder / "config.yaml").train.kimg == 0.032
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 9))
    terms = {"D/adversarial", "D/img_txt_d", "G/adversarial", "G/img_txt_d", "G/img_txt_clip"}
    figures = {"gradient_norm", "sign_real", "ada_p", "images_per_second", "seconds_per_kimg", "memory_gb"}
    assert terms | figures <= set(lines[1]) | {name.split("/")[-1] for name in lines[1]}
    assert "D/r1" in lines[0]
    assert "D/r1" not in lines[1]
    assert "G/path_length" in lines[2]
    kept = checkpoint.folders(folder)
    assert [p.name for p in kept] == ["000000006", "000000008"]
    assert {p.name for p in kept[-1].iterdir()} == {
        "generator.safetensors", "discriminator.safetensors", "model.json", "state.pt"
    }  # fmt: skip
    snapshots = sorted((folder / "snapshots").glob("*.png"))
    assert [p.stem for p in snapshots] == ["0000000016", "0000000032"]
    with Image.open(snapshots[0]) as picture:
        assert picture.width >= 2 * 16
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert {"D/r1", "G/img_txt_clip", "ada_p", "images_per_second"} <= set(board.Tags()["scalars"])
    assert board.Scalars("G/adversarial")[-1].step == 32
    assert "snapshot" in board.Tags()["images"]
    trained, fresh = weights(folder), weights(run_here(arguments, monkeypatch, "name=b", "train.kimg=0.004"))
    assert any(not torch.equal(trained[k], fresh[k]) for k in trained)
    assert not any(k.startswith(("text_encoder", "clip")) for k in trained)


def test_resumed_equals_uninterrupted(arguments, monkeypatch):
    whole = run_here(arguments, monkeypatch, "name=whole", "train.kimg=0.032", "ada.mode=ada", "ada.p=0.3")
    for kimg in (0.012, 0.032):  # three steps, then a new start of the same command with more to do
        parts = run_here(arguments, monkeypatch, "name=parts", f"train.kimg={kimg}", "ada.mode=ada", "ada.p=0.3")
    a, b = (torch.load(checkpoint.folders(p)[-1] / "state.pt", weights_only=True) for p in (whole, parts))
    for key in ("G", "D", "G_ema"):
        assert all(torch.equal(a[key][k], b[key][k]) for k in a[key]), key
    for key in ("g_optimizer", "d_optimizer"):
        for index, values in a[key]["state"].items():
            assert all(torch.equal(values[k], b[key]["state"][index][k]) for k in values), key
    assert (a["step"], a["ada_p"], a["ada_signs"]) == (b["step"], b["ada_p"], b["ada_signs"])
    assert torch.equal(a["memory"]["path_length"]["mean"], b["memory"]["path_length"]["mean"])
    assert [line["step"] for line in metrics(parts)] == list(range(1, 9))


def test_killed_at_any_moment_it_continues_bit_for_bit(arguments, tmp_path):
    settings = ["train.kimg=0.2", "log.checkpoint_kimg=0.008", "log.snapshot_kimg=0"]
    whole = launch(arguments, "name=whole", *settings)
    killed = launch(arguments, "name=killed", *settings)
    folder = tmp_path / "runs" / "killed"
    deadline = time.monotonic() + 120
    while not checkpoint.folders(folder) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    done = metrics(folder)[-1]["step"]
    assert done < 50, "the run was over before the kill"
    out = launch(arguments, "name=killed", *settings).communicate(timeout=240)[0]
    assert "finished" in out, out
    assert "kimg on:" in out
    assert "finished" in whole.communicate(timeout=240)[0]
    a, b = weights(tmp_path / "runs" / "whole"), weights(folder)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [line["step"] for line in metrics(folder)] == list(range(1, 51))


def test_sigterm_writes_a_checkpoint_before_leaving(arguments, tmp_path):
    process = launch(arguments, "train.kimg=1000", "log.checkpoint_kimg=1000", "log.snapshot_kimg=0")
    folder = tmp_path / "runs" / "scenes"
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    # accelerate does not pass signals on: to the training itself
    os.kill(int(children.stdout.split()[0]), signal.SIGTERM)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert "stopped at" in out
    assert "Traceback" not in out
    (last,) = checkpoint.folders(folder)
    assert int(last.name) == metrics(folder)[-1]["step"]


def test_two_processes_train_through_the_documented_command(arguments, tmp_path):
    process = launch(arguments, "train.kimg=0.008", "train.accumulate=2", "discriminator.mbstd_group=1", processes=2)
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out
    assert "2 process(es)" in out
    assert [line["step"] for line in metrics(tmp_path / "runs" / "scenes")] == [1, 2]


def test_the_last_step_may_pass_the_goal(arguments, monkeypatch):
    """Without a warning of the progress bar."""
    assert metrics(run_here(arguments, monkeypatch, "train.kimg=0.01", "train.batch=4"))[-1]["kimg"] == 0.012


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_accumulation_and_precisions_train(arguments, monkeypatch, precision):
    folder = run_here(arguments, monkeypatch, "train.kimg=0.008", f"train.precision={precision}", "train.accumulate=2")
    assert all(torch.isfinite(v).all() for v in weights(folder).values())


def test_a_run_that_diverges_stops_and_says_where(arguments, monkeypatch):
    run_here(arguments, monkeypatch, "train.kimg=0.008", "log.checkpoint_kimg=0.004")
    with pytest.raises(UserError) as error:
        run_here(arguments, monkeypatch, "train.kimg=1", "optim.g.lr=1e30", "optim.d.lr=1e30")
    message = str(error.value)
    assert "not finite" in message
    assert "adversarial=" in message
    assert "last good checkpoint" in message
    assert "000000002" in message
    assert "\n" not in message


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_intact(arguments, monkeypatch):
    folder = run_here(arguments, monkeypatch, "train.kimg=0.008")
    before = {p: p.read_bytes() for p in checkpoint.folders(folder)[-1].iterdir()}

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # writes beyond this fail, as on a full disk
    try:
        with pytest.raises(UserError, match="free space"):
            run_here(arguments, monkeypatch, "train.kimg=0.016")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert {p: p.read_bytes() for p in checkpoint.folders(folder)[-1].iterdir()} == before
    assert not list((folder / "checkpoints").glob(".partial*"))
    run_here(arguments, monkeypatch, "train.kimg=0.016")
    assert checkpoint.folders(folder)[-1].name == "000000004"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generator.name=stylegan9", "stylegan2"),
        ("data.shards=nowhere", "nowhere"),
        ("model.resolution=32", "16"),
        ("resume=maybe", "auto"),
        ("encoders.text=scene-clip", "scene-clip"),
        ("train.batch=6", "mbstd_group"),
        ("train.precision=fp16", "CUDA"),
    ],
)
def test_mistakes_are_one_line(arguments, monkeypatch, override, said):
    if "fp16" in override and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=said) as error:
        run_here(arguments, monkeypatch, "train.kimg=0.008", override)
    assert "\n" not in str(error.value)


def test_another_model_does_not_resume(arguments, monkeypatch):
    run_here(arguments, monkeypatch, "train.kimg=0.004")
    with pytest.raises(UserError, match="does not fit"):
        run_here(arguments, monkeypatch, "train.kimg=0.008", "generator.style_dim=12")
    with pytest.raises(UserError, match="resume=never"):
        run_here(arguments, monkeypatch, "train.kimg=0.008", "resume=never")


def test_two_trainings_do_not_share_a_folder(arguments, monkeypatch, tmp_path):
    with loop.claim(tmp_path / "runs" / "scenes"), pytest.raises(UserError, match="another process"):
        run_here(arguments, monkeypatch, "train.kimg=0.004")
    run_here(arguments, monkeypatch, "train.kimg=0.004")


def test_learning_rates_are_per_network(arguments):
    settings = config.load(arguments[0], [*arguments[1:], "optim.g.lr=0.001", "optim.d.lr=0.004"])
    run = build.build(settings, torch.device("cpu"))
    step.follow_schedules(run)
    assert run.g_optimizer.param_groups[0]["lr"] == 0.001
    assert run.d_optimizer.param_groups[0]["lr"] == 0.004
    trained = {id(p) for o in (run.g_optimizer, run.d_optimizer) for group in o.param_groups for p in group["params"]}
    frozen = [*run.text_encoder.parameters(), *run.encoders["clip"].parameters()]
    assert frozen
    assert not any(p.requires_grad or id(p) in trained for p in frozen)
    assert trained == {id(p) for p in [*run.G.parameters(), *run.D.parameters()]}


def test_ema_half_life():
    from t2i import ema

    beta = ema.decay(batch=32, images=10**9, half_life_kimg=10, ramp=None)
    assert beta ** (10_000 / 32) == pytest.approx(0.5)
    assert ema.decay(32, 6400, 10, 0.05) == pytest.approx(0.5 ** (32 / 320))
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.25 * b.weight + 0.75 * a.weight
    ema.update(a, b, 0.75)
    assert torch.allclose(a.weight, expected)


def test_defaults_make_a_config():
    assert Config() == config.load()
