"""Two objects, two colours: the judge of who has which."""

import importlib.util
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms.functional import to_tensor

from t2i import model as models
from t2i.errors import UserError
from t2i.probes import binding as judge
from t2i.probes.classifier import save
from t2i.worlds import binding

ROOT = Path(__file__).parents[1]


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(caption):
    return set(re.findall(rf"({'|'.join(binding.COLORS)}) ({'|'.join(binding.OBJECTS)})", caption))


def test_probe_prints_and_writes_the_figures(tmp_path, monkeypatch, capsys):
    """A model that gives every seen couple its colours and exchanges those of held-out ones."""

    def stream(texts, truncation, noise, seeds):
        for text in texts:
            (a, b), held_out = sorted(said(text)), set(map(frozenset, binding.HELD_OUT))
            things = [(b[0], a[1]), (a[0], b[1])] if frozenset((a, b)) in held_out else [a, b]
            plan = binding.arrange(things, random.Random(text))
            yield to_tensor(binding.render(plan, 0, 0, 16))[None] * 2 - 1

    model = SimpleNamespace(path=Path("runs/x"), kimg=12.0, stream=stream)
    monkeypatch.setattr(models, "load_model", lambda path, device: model)
    script("probe").main(["--world", "binding", "--count", "24", "--json", str(tmp_path / "probe.json")])
    figures = json.loads((tmp_path / "probe.json").read_text())
    assert figures["seen/binding"] > 0.9 > 0.1 > figures["seen/swapped"]
    assert figures["held_out/swapped"] > 0.9 > 0.1 > figures["held_out/binding"]
    assert figures["drawn_held_out/binding"] > 0.9
    assert all(isinstance(value, int | float) for value in figures.values())
    assert capsys.readouterr().out.splitlines()[1].split() == ["objects", "binding", "swapped", "pictures"]


def test_compute_by_hand():
    """Right; exchanged; one object only; both, one colour wrong."""
    seen = [
        {"car": "red", "boat": "blue"},
        {"car": "blue", "boat": "red"},
        {"car": "red"},
        {"car": "red", "boat": "green"},
    ]
    probe = SimpleNamespace(name=lambda images: seen)
    asked = [(("red", "car"), ("blue", "boat"))] * 4
    result = judge.compute(torch.zeros(4, 3, 8, 8), asked, probe)
    assert result == {"objects": 0.75, "binding": 0.25, "swapped": 0.25, "bound": 0.5, "count": 4}
    with pytest.raises(ValueError, match="4 images, 3 prompts"):
        judge.compute(torch.zeros(4, 3, 8, 8), asked[:3], probe)


def test_shipped_probe_is_right_about_fresh_pictures_of_both_sizes():
    probe = judge.load()
    images, things = judge.real(150, 987654)
    assert judge.compute(images, things, probe)["binding"] >= 0.98
    assert judge.compute(judge.halve(images), things, probe)["binding"] >= 0.96
    exchanged = [((d, a), (c, b)) for (c, a), (d, b) in things]
    wrong = judge.compute(images, exchanged, probe)
    assert wrong["swapped"] >= 0.98
    assert wrong["binding"] == 0
    assert sum(f.stat().st_size for f in judge.SHIPPED.iterdir()) < 7e5
    assert json.loads((judge.SHIPPED / "probe.json").read_text())["accuracy"]["all"] >= 0.98


def test_train_saves_what_load_reads_and_another_folder_is_one_line(tmp_path):
    probe, accuracy = judge.train(64, epochs=1, batch=32, tests=16)
    assert 0 <= accuracy["all"] <= accuracy["each"] <= 1
    save(probe, tmp_path, {"accuracy": accuracy})
    images = judge.real(4, 1)[0]
    torch.testing.assert_close(judge.load(tmp_path)(images), probe(images), rtol=0.02, atol=0.02)
    (tmp_path / "probe.json").write_text('{"objects": ["train"], "colors": ["red"]}')
    with pytest.raises(UserError, match="--world binding --train"):
        judge.load(tmp_path)
