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
from t2i.probes import classifier, measure, standins
from t2i.probes import scenes as scenes_judge
from t2i.probes.classifier import save
from t2i.probes.lesson import lesson
from t2i.probes.sight import Seen, Sight
from t2i.rng import Rng
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

    model = SimpleNamespace(path=Path("runs/x"), kimg=12.0, stream=stream, resolution=32)
    monkeypatch.setattr(models, "load_model", lambda path, device: model)
    script("probe").main(["--world", "binding", "--count", "24", "--json", str(tmp_path / "probe.json")])
    figures = json.loads((tmp_path / "probe.json").read_text())
    assert figures["seen/binding"] > 0.9 > 0.1 > figures["seen/swapped"]
    assert figures["held_out/swapped"] > 0.9 > 0.1 > figures["held_out/binding"]
    assert figures["drawn_held_out/binding"] > 0.9
    assert figures["side"] == 32
    assert max(value for name, value in figures.items() if name.startswith("floor") and "/objects" in name) <= 0.1
    assert all(isinstance(value, int | float) for value in figures.values())
    assert capsys.readouterr().out.splitlines()[1].split() == ["objects", "binding", "swapped", "pictures"]


def test_compute_by_hand():
    """Right; exchanged; one object only; both, one colour wrong."""
    seen = [
        [Seen("car", "red"), Seen("boat", "blue")],
        [Seen("car", "blue"), Seen("boat", "red")],
        [Seen("car", "red")],
        [Seen("car", "red"), Seen("boat", "green")],
    ]
    probe = SimpleNamespace(look=lambda images: seen)
    asked = [(("red", "car"), ("blue", "boat"))] * 4
    result = judge.compute(torch.zeros(4, 3, 8, 8), asked, probe)
    assert result == {"objects": 0.75, "binding": 0.25, "swapped": 0.25, "bound": 0.5, "count": 4}
    with pytest.raises(ValueError, match="4 images, 3 prompts"):
        judge.compute(torch.zeros(4, 3, 8, 8), asked[:3], probe)


def test_shipped_probe_is_right_about_fresh_pictures_of_both_sizes():
    probe = judge.load()
    small = judge.compute(*judge.real(150, 987654, 32), probe)
    assert small["objects"] >= 0.96
    assert small["binding"] >= 0.94
    images, things = judge.real(150, 987654)
    right = judge.compute(images, things, probe)
    assert right["objects"] >= 0.97
    assert right["binding"] >= 0.96
    exchanged = [((d, a), (c, b)) for (c, a), (d, b) in things]
    wrong = judge.compute(images, exchanged, probe)
    assert wrong["swapped"] >= 0.96
    assert wrong["binding"] == 0
    assert sum(f.stat().st_size for f in judge.SHIPPED.iterdir()) < 2e6
    accuracy = json.loads((judge.SHIPPED / "probe.json").read_text())["accuracy"]
    assert accuracy["objects"] >= 0.97
    assert accuracy["binding"] >= 0.95
    assert max(share for name, share in accuracy.items() if name.endswith(("64_objects", "32_objects"))) <= 0.05


@pytest.mark.parametrize("side", [64, 32])
def test_shipped_probe_falls_for_no_stand_in(side):
    """Nor for one beside an object: of that it sees the object alone."""
    probe = judge.load()
    for kind, (images, things) in judge.floors(150, 987654, side).items():
        assert images.shape == (150, 3, side, side)
        assert judge.compute(images, things, probe)["objects"] <= 0.07, kind
    apart, plans = judge._apart(100, 987654, side)
    ground, real = apart.layers()
    ellipses = standins.shapes(apart.boxes[:, 1], apart.paints[:, 1], side, 0.0, Rng(0))
    seen = probe.look(standins.lay(ground, torch.stack((real[:, 0], ellipses), 1)))
    alone = [len(of) == 1 and of[0].object == plan["objects"][0]["name"] for of, plan in zip(seen, plans)]
    assert sum(alone) >= 90


def test_shipped_probe_is_not_fooled_by_what_it_never_learnt():
    """Objects upside down, their silhouettes in one colour, other scenes' objects in their places."""
    apart, plans = judge._apart(100, 987654)
    asked = [judge._things(plan) for plan in plans]
    ground, things = apart.layers()
    paint = apart.paints[:, :, 0].float() / 127.5 - 1  # [N, 2, 3]
    flat = torch.cat((paint[..., None, None] * things[:, :, 3:], things[:, :, 3:]), 2)
    scene, shown = scenes_judge._apart(180, 987654)
    other = [i for i, plan in enumerate(shown) if plan["objects"][0]["name"] not in binding.OBJECTS][:100]
    small = torch.nn.functional.interpolate(scene.layers()[1][other, 0], (30, 30), mode="area")
    strange = torch.zeros(100, 2, 4, 64, 64)
    strange[:, 0, :, 25:55, 1:31], strange[:, 1, :, 25:55, 33:63] = small, small.roll(1, 0)
    probe = judge.load()
    for images in (classifier.floats(apart.whole).flip(2), standins.lay(ground, flat), standins.lay(ground, strange)):
        assert judge.compute(images, asked, probe)["objects"] <= 0.03
        assert sum(len(seen) > 1 for seen in probe.look(images)) <= 3


def test_no_picture_of_the_probe_is_one_of_a_training_set(monkeypatch):
    seeds = set()
    for name in ("draw", "draw_apart"):
        draw = getattr(binding, name)
        monkeypatch.setattr(binding, name, lambda seed, *a, draw=draw, **k: seeds.add(seed) or draw(seed, *a, **k))
    judge.train(32, epochs=1, batch=32, tests=4)
    assert min(seeds) >= measure.OWN_SEEDS > measure.DRAWN_SEEDS > 10**5


def test_pictures_come_apart_into_two_things():
    apart, plans = judge._apart(20, 4)
    ground, things = apart.layers()
    torch.testing.assert_close(standins.lay(ground, things), classifier.floats(apart.whole))
    assert things.shape == (20, 2, 4, 64, 64)
    for plan, two in zip(plans, things[:, :, 3]):
        for thing, mask in zip(plan["objects"], two):
            x, y, w, h = (64 * v for v in thing["box"])
            rows, columns = (mask > 0.5).any(1).nonzero(), (mask > 0.5).any(0).nonzero()
            assert x - 1.5 <= columns.min() <= x + 3
            assert x + w - 4 <= columns.max() <= x + w + 1
            assert y - 1.5 <= rows.min()
            assert rows.max() <= y + h + 1


def test_a_lesson_names_only_what_is_an_object():
    """Masks are of their own objects; of an object there twice in two colours no colour is asked."""
    apart, plans = judge._apart(100, 4)
    eyes = Sight(binding.OBJECTS, binding.COLORS, apart=True)
    objects = torch.tensor([[eyes.objects.index(thing["name"]) for thing in plan["objects"]] for plan in plans])
    colors = torch.tensor([[eyes.colors.index(thing["color"]) for thing in plan["objects"]] for plan in plans])
    learnt = lesson(eyes, apart, objects, colors, Rng(1))
    assert learnt.maps.shape == (100, 4, 64, 64)
    there = learnt.objects < 4
    assert torch.equal(there, learnt.objects == torch.arange(4))
    assert 0.15 < there.float().mean() < 0.35
    assert (learnt.maps.amax((2, 3))[there] > 0.3).all()
    clear = learnt.images.std((1, 2, 3)) < 0.5  # no noise; what is blurred has masks of what was there
    assert (learnt.maps.amax((2, 3))[~there & clear[:, None]] == 0).float().mean() > 0.9
    assert (learnt.colors[~there] == -1).all()
    twice = objects == objects.roll(1, 0)[:, [1, 1]]
    assert twice[:, 0].any()
    assert (learnt.colors[there] >= 0).float().mean() > 0.8


def test_train_saves_what_load_reads_and_another_folder_is_one_line(tmp_path):
    probe, accuracy = judge.train(64, epochs=1, batch=32, tests=16)
    assert {"half_objects", "bent_10_objects", "warped_32_objects"} < set(accuracy)
    assert 0 <= accuracy["binding"] <= accuracy["objects"] <= 1
    save(probe, tmp_path, {"accuracy": accuracy})
    images = judge.real(4, 1)[0]
    for a, b in zip(judge.load(tmp_path)(images), probe(images)):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    (tmp_path / "probe.json").write_text('{"objects": ["train"], "colors": ["red"], "apart": true}')
    with pytest.raises(UserError, match="--world binding --train"):
        judge.load(tmp_path)
