"""clean-fid's mode beside the clean-fid package: its resizing, and what it hands to the network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from t2i.metrics.networks import clip, inception_clean

resize = pytest.importorskip("cleanfid.resize", reason="clean-fid, of the dev extra, is not installed")
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
LARGE = np.random.default_rng(1).integers(0, 256, (1, 400, 400, 3), dtype=np.uint8)


def images(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.mark.parametrize("pixels", [PIXELS, LARGE, np.full_like(PIXELS, 255)], ids=["up", "down", "white"])
def test_resizing_is_clean_fids_to_the_last_bit(pixels):
    theirs = np.stack([resize.build_resizer("clean")(picture) for picture in pixels])
    ours = inception_clean.resized(images(pixels)).permute(0, 2, 3, 1).numpy()
    assert ours.dtype == theirs.dtype == np.float32
    assert np.array_equal(ours, theirs)


class StandIn(nn.Module):
    """As Inception: layers in order, the last of which is no feature."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3, self.Mixed, self.AvgPool = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(16)
        self.fc = nn.Linear(2048, 10)


def test_the_network_sees_what_clean_fids_sees(monkeypatch):
    from cleanfid.inception_torchscript import InceptionV3W

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StandIn().eval()
    layers = nn.Sequential(network.Conv2d_1a_3x3, network.Mixed, network.AvgPool)
    base = SimpleNamespace(layers=layers, eval=lambda: base)
    monkeypatch.setattr(torch.jit, "load", lambda path: base)
    monkeypatch.setattr(nn.Module, "__setattr__", object.__setattr__)  # theirs keeps a module that is none here
    theirs = InceptionV3W("nowhere", download=False)
    seen = torch.stack([torch.from_numpy(resize.build_resizer("clean")(p)).permute(2, 0, 1) for p in PIXELS])
    with torch.no_grad():
        expected = theirs.forward(seen)
        ours = inception_clean.pooled(network, inception_clean.resized(images(PIXELS)))
    assert ours.shape == (2, 2048)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_short_names_of_clips_are_published_ones_of_open_clip():
    import open_clip

    for name in clip.PRESETS.values():
        arch, tag = name.removeprefix("open_clip:").split("/")
        assert tag in open_clip.list_pretrained_tags_by_model(arch)
