"""Shared by all tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

# No timed assertions, and the same cases always.
hypothesis.settings.register_profile("t2i", deadline=None, derandomize=True)
hypothesis.settings.load_profile("t2i")
# Networks that a test can train.
TINY = [
    "model.resolution=16", "generator.channel_base=128", "generator.channel_max=8", "generator.latent_dim=8",
    "generator.style_dim=8", "generator.mapping_layers=1", "discriminator.channel_base=128",
    "discriminator.channel_max=8",
]  # fmt: skip
torch.set_num_threads(1)  # two test processes on two cores must not fight for them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory) -> Path:
    """Shards of 40 scenes at 16×16, made by the command."""
    out = tmp_path_factory.mktemp("shards") / "tiny"
    script = Path(__file__).parents[1] / "scripts" / "make_shards.py"
    command = [sys.executable, str(script), "scenes", "--out", str(out)]
    subprocess.run([*command, "--count", "40", "--size", "16", "--workers", "1"], check=True, capture_output=True)
    return out


def build_here(*settings: str):
    """A run of tiny networks at step 0, on the CPU in fp32."""
    from t2i import config
    from t2i.build import build

    return build(config.load(None, [*TINY, *settings]), torch.device("cpu"))


def train_here(monkeypatch, *arguments: str) -> None:
    """The training command in this process, which is then as it was."""
    from t2i import train

    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    try:
        train.main()
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
