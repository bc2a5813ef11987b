"""scripts/benchmark_kernels.py: both forms that it times compute the same, and it says what it measured."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from t2i import config
from t2i.benchmark import stylegan3

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark_kernels.py"
SPEC = importlib.util.spec_from_file_location("benchmark_kernels", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


@pytest.mark.parametrize("kind", ["t", "r"])
def test_the_published_form_of_stylegan3_is_ours(kind):
    small = [
        "generator.name=stylegan3", "model.resolution=16", "generator.channel_base=64",
        "discriminator.channel_base=64", "generator.channel_max=6", "discriminator.channel_max=6",
        "generator.latent_dim=8", "generator.style_dim=8", "generator.layers=4", f"generator.equivariance={kind}",
    ]  # fmt: skip
    settings = config.load(None, small)
    ours, theirs = (stylegan3.measure(published, settings, 2, 1, torch.device("cpu")) for published in (False, True))
    torch.testing.assert_close(ours["picture"], theirs["picture"], rtol=1e-4, atol=1e-5)
    assert ours["picture"].std() > 0
    assert 0 < ours["kept"] < theirs["kept"] / 2


def test_attention_is_compared(monkeypatch, capsys):
    arguments = ["attention", "--lengths", "8,300", "--repeat", "1", "--heads", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    benchmark.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["8", "plain"], ["8", "ours"], ["300", "plain"], ["300", "ours"]]
    assert all(float(row[-1]) < 1e-4 for row in rows)
    plain, ours = (float(row[5]) for row in rows[2:])
    assert ours < plain


def test_memory_is_compared():
    small = ["model.resolution=64", "model.width=0.25", "generator.mapping_layers=1"]
    sets = [part for setting in small for part in ("--set", setting)]
    command = [sys.executable, str(SCRIPT), "memory", "--batch", "4", "--device", "cpu", *sets]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.rsplit(maxsplit=3) for line in output.splitlines()[2:]]
    assert [row[0] for row in rows] == ["StyleGAN2", "StyleGAN3-T", "StyleGAN3-T, recompute"]
    usual, recomputed = (float(row[1]) for row in rows[1:])
    assert 0 < recomputed < usual
