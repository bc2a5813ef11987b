"""The command that compares what whole training steps cost."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from t2i.benchmark import scores
from t2i.benchmark import steps as whole_steps
from t2i.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_command", ROOT / "scripts" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return module


def test_compare_counts_every_step_of_a_cycle_and_gives_ratios(benchmark, monkeypatch, capsys, tmp_path):
    changes = [
        "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128",
        "generator.channel_max=8", "discriminator.channel_max=8", "generator.style_dim=8", "train.batch=4",
        "loss.r1.every=3", "loss.r2.every=3",
    ]  # fmt: skip
    arguments = ["--compare", str(ROOT / "configs" / "base.yaml"), str(ROOT / "configs" / "modified2.yaml")]
    arguments += ["--repeat", "2", "--device", "cpu", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments, *(x for c in changes for x in ("--set", c))])
    steps = []
    plain = whole_steps.train_step
    monkeypatch.setattr(
        whole_steps, "train_step", lambda b, run: steps.append((run.config.name, run.step)) or plain(b, run)
    )
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    order = [0, *range(6)]  # one to warm up, then two cycles of three
    assert steps == [(name, step) for step in order for name in ("base", "modified2")]
    found = json.loads((tmp_path / "out.json").read_text())
    rows = found["rows"]
    assert [row["run"] for row in rows] == ["base", "modified2"]
    assert rows[0]["ratio"] == 1
    assert rows[1]["ratio"] == pytest.approx(rows[1]["s a kimg"] / rows[0]["s a kimg"])
    assert rows[1]["s a kimg"] == pytest.approx(rows[1]["ms a step"] / 4)
    assert found["machine"]["threads"] == 1
    assert "modified2" in capsys.readouterr().out


def test_every_part_of_training_has_a_row(benchmark, monkeypatch, capsys, tiny_shards):
    changes = [
        "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128", "generator.latent_dim=8",
        "generator.style_dim=8",
    ]  # fmt: skip
    arguments = ["--batch", "4", "--repeat", "1", "--device", "cpu", "--shards", str(tiny_shards)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments, *(x for c in changes for x in ("--set", c))])
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    phases = ["G forward", "G step", "D step", "R1", "path length"]
    assert rows[:-1] == [*phases, *phases, "text encoder", "CLIP image, forward+backward", "bare JPEG decoding"]
    assert rows[-1].startswith("loader (")


def test_every_metric_has_a_row_and_the_whole_is_their_sum(benchmark, monkeypatch, capsys, tmp_path):
    arguments = [
        "metrics",
        "--count",
        "60",
        "--size",
        "32",
        "--metrics",
        "swd,kid",
        "--json",
        str(tmp_path / "out.json"),
    ]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    benchmark.main()
    *rows, whole = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["pictures, stand-ins", "pictures, patches", "kid", "swd"]
    assert [row["scores"] for row in rows[2:]] == ["1, 1 with intervals", "3, 0 with intervals"]
    assert sum(row["CPU s"] for row in rows) == pytest.approx(whole["CPU s"], abs=0.5)
    assert 0.05 < whole["GB"] == max(row["GB"] for row in rows) < 2
    assert "pictures, patches" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "metrics", "--metrics", "fido"])
    with pytest.raises(UserError, match="--metrics fido: known: "):
        benchmark.main()


def test_stand_ins_have_features_for_every_metric_that_is_measured(capfd):
    """A metric that was added since, and reads what no stand-in gives, would be left out of the table unseen."""
    whole = scores.scores(24, 32)[-1]
    assert whole["what"] == "all"
    assert "without" not in whole["scores"], whole["scores"]
