"""A small VGG trained on captioned shards, and the one that ships."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from t2i.encoders.vgg import Vgg, load_vgg
from t2i.errors import UserError
from t2i.fit import vgg as fit
from t2i.probes import scenes as probe
from t2i.worlds import scenes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("train_vgg_command", ROOT / "scripts" / "train_vgg.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_it_writes_loads_and_has_learnt(command, tiny_shards, tmp_path, monkeypatch, capsys):
    out = tmp_path / "sub" / "vgg.safetensors"
    arguments = ["--shards", str(tiny_shards), "--out", str(out), "--steps", "250", "--lr", "0.02"]
    arguments += ["--batch", "10", "--widths", "4,6"]
    monkeypatch.setattr(sys, "argv", ["train_vgg.py", *arguments, "--device", "cpu"])
    command.main()
    vgg = load_vgg(str(out))
    assert vgg.layers == {"relu1_2": 4, "relu2_2": 6}
    assert not any(p.requires_grad for p in vgg.parameters())
    said = capsys.readouterr().out
    loss, guess = (float(said.split(before)[1].split(",")[0]) for before in ("words ", "pictures "))
    assert loss < guess


def test_only_safetensors_are_written(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_vgg.py", "--shards", "x", "--out", "vgg.pt"])
    with pytest.raises(UserError, match=r"--out vgg\.pt: name a \.safetensors file"):
        command.main()


def test_the_one_that_ships_knows_scenes_better_than_a_random_one():
    """Its pooled features, linearly read, tell the object of drawn scenes; random weights of its shape do worse."""
    images, objects, _ = probe.real(300, 5, only_held_out=False)
    target = torch.tensor([list(scenes.SUBJECTS).index(name) for name in objects])

    def accuracy(vgg) -> float:
        x = torch.cat(list(vgg.pooled(images).values()), 1)
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
        torch.manual_seed(0)
        head = nn.Linear(x.shape[1], len(scenes.SUBJECTS))
        optimizer = torch.optim.Adam(head.parameters(), 0.05, weight_decay=1e-3)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x[:200]), target[:200]).backward()
            optimizer.step()
        return float((head(x[200:]).argmax(1) == target[200:]).float().mean())

    torch.manual_seed(0)
    shipped = load_vgg("scenes-vgg")
    assert list(shipped.layers.values()) == [8, 16, 32, 64]
    assert accuracy(shipped) > accuracy(Vgg(fit.start([8, 16, 32, 64]))) + 0.1
