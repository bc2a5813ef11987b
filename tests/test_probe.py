"""The judge of drawn scenes: right about real ones, and its sums are right."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageChops
from torchvision.transforms.functional import to_tensor

from t2i import files
from t2i import model as models
from t2i.errors import UserError
from t2i.probes import classifier, measure, standins
from t2i.probes import scenes as judge
from t2i.probes.lesson import lesson
from t2i.probes.sight import Seen, Sight, counted
from t2i.rng import Rng
from t2i.worlds import scenes

SCRIPT = Path(__file__).parents[1] / "scripts" / "probe.py"


def script():
    spec = importlib.util.spec_from_file_location("probe_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saying(objects, colors):
    """A judge that answers this whatever it is shown."""
    return SimpleNamespace(look=lambda images: [[Seen(o, c)] for o, c in zip(objects, colors)])


@pytest.fixture(scope="module")
def shipped():
    return judge.load()


@pytest.fixture(scope="module")
def drawn():
    """200 scenes that no training of the probe drew: another seed."""
    return judge.real(200, 987654, held_out=())


def test_shipped_probe_is_right_about_fresh_scenes(shipped, drawn):
    result = judge.compute(*drawn, shipped)
    assert result["object"] >= 0.98
    assert result["color"] >= 0.98
    assert result["count"] == 200
    # Prompts that belong to other pictures: as often right as chance has it, 1 in 11 scenes.
    images, objects, colors = drawn
    order = Rng(0).rand(200).argsort().tolist()
    wrong = judge.compute(images, [objects[i] for i in order], [colors[i] for i in order], shipped)
    assert wrong["object"] < 0.25
    assert wrong["both"] < 0.1


@pytest.mark.parametrize("side", [64, 32])
def test_shipped_probe_falls_for_no_stand_in(shipped, side):
    """Noise, the right ground alone, with an ellipse or a scribble in the right colour and place, a blurred object."""
    floors = judge.floors(150, 987654, side)
    assert set(floors) == {"noise", "background", "ellipse", "box", "scribble", "warped", "blurred"}
    for kind, shown in floors.items():
        assert shown[0].shape == (150, 3, side, side)
        shares = judge.compute(*shown, shipped)
        limit = 0.2 if kind == "warped" else 0.1  # some are warped where they have no features
        assert max(shares["object"], shares["color"], shares["both"]) <= limit, (kind, shares)


def test_shipped_probe_counts_and_places(shipped):
    images, plans = classifier.drawings(200, lambda i: scenes.draw(987654, i, 64, held_out=()), 64)
    seen = shipped.look(images)
    subjects = [plan["objects"][0] for plan in plans]
    assert len({s["count"] for s in subjects}) == 4
    right = [bool(things) and things[0].count == s["count"] for things, s in zip(seen, subjects)]
    assert sum(right) >= 0.96 * len(right)
    middles = [(things[0].x, s["box"][0] + s["box"][2] / 2) for things, s in zip(seen, subjects) if things]
    assert sum(abs(a - b) < 0.06 for a, b in middles) >= 0.95 * len(middles)


def test_parts_are_counted_even_where_corners_meet():
    cores = np.zeros((6, 6), bool)
    assert counted(cores) == 0
    cores[0, 0] = cores[1, 1] = cores[3, 0] = cores[5, 3:] = True
    assert counted(cores) == 3


def test_shipped_probe_looks_at_the_object_and_not_at_its_ground(shipped):
    """Objects on the grounds of other scenes are what they are."""
    apart, plans = judge._apart(100, 987654)
    objects, colors = judge._subjects(plans)
    ground, things = apart.layers()
    images = standins.lay(ground.roll(1, 0), things)
    assert judge.compute(images, objects, colors, shipped)["object"] >= 0.95
    others = objects[-1:] + objects[:-1]
    differ = [i for i, (a, b) in enumerate(zip(objects, others)) if a != b]
    misled = judge.compute(images[differ], [others[i] for i in differ], [colors[i] for i in differ], shipped)
    assert misled["object"] <= 0.05


def test_shipped_probe_is_right_about_held_out_pairs(shipped):
    result = judge.compute(*judge.real(80, 55, only_held_out=True), shipped)
    assert result["both"] >= 0.95
    assert set(result["objects"]) <= {name for _, name in scenes.HELD_OUT}


def test_shipped_probe_reads_spoilt_and_larger_pictures(shipped, drawn):
    images, objects, colors = drawn
    large = torch.nn.functional.interpolate(images, (128, 128), mode="bilinear")
    assert judge.compute(large, objects, colors, shipped)["both"] >= 0.95
    assert judge.compute(classifier.spoil(images, Rng(1)), objects, colors, shipped)["object"] >= 0.9


def test_shipped_probe_is_small_and_says_how_good_it_is():
    files = list(judge.SHIPPED.iterdir())
    assert sum(f.stat().st_size for f in files) < 1.5e6
    accuracy = json.loads((judge.SHIPPED / classifier.DESCRIPTION).read_text())["accuracy"]
    assert accuracy["object"] >= 0.99
    assert accuracy["color"] >= 0.98
    for side in (64, 32):
        assert accuracy[f"background_{side}_object"] <= 0.05
        assert accuracy[f"ellipse_{side}_object"] <= 0.05


def test_no_scene_of_the_probe_is_one_of_a_training_set(monkeypatch):
    """Shards are drawn with small seeds; what a probe learns from and is tested on, never."""
    seeds = set()
    draw, draw_apart = scenes.draw, scenes.draw_apart
    monkeypatch.setattr(scenes, "draw", lambda seed, *a, **k: seeds.add(seed) or draw(seed, *a, **k))
    monkeypatch.setattr(scenes, "draw_apart", lambda seed, *a, **k: seeds.add(seed) or draw_apart(seed, *a, **k))
    judge.train(32, epochs=1, batch=32, tests=8)
    assert min(seeds) >= measure.OWN_SEEDS > measure.DRAWN_SEEDS > 10**5


def test_scenes_come_apart():
    """Ground and object laid on it give the picture again; where no object is seen, both are the same."""
    apart, _ = judge._apart(30, 4)
    ground, things = apart.layers()
    torch.testing.assert_close(standins.lay(ground, things), classifier.floats(apart.whole))
    seen = (apart.masks > 128).float().mean((1, 2, 3))
    assert 0.03 < seen.min() < seen.max() < 0.7
    for i in range(30):
        image, without, mask, plan = scenes.draw_apart(3, i, 32)
        again, _, attributes = scenes.draw(3, i, 32)
        assert (image.tobytes(), plan) == (again.tobytes(), attributes)
        assert (without.mode, mask.mode, without.size, mask.size) == ("RGB", "L", (64, 64), (64, 64))
        differ = np.asarray(ImageChops.difference(image, without)).max(2) > 0
        assert not (differ & (np.asarray(mask) == 0)).any()
        assert differ.any()


def test_a_lesson_has_objects_and_stand_ins():
    """What it shows of an object has a mask, and as many cores as there are objects; a stand-in is none."""
    apart, plans = judge._apart(100, 4)
    eyes = Sight(scenes.SUBJECTS, list(scenes.PALETTE))
    objects, colors = torch.arange(100)[:, None] % 13, torch.full((100, 1), -1)
    learnt = lesson(eyes, apart, objects, colors, Rng(1))
    assert learnt.images.shape == (100, 3, 64, 64)
    assert learnt.images.abs().max() <= 1
    assert learnt.maps.shape == (100, 2, 64, 64)
    assert (learnt.maps.min() >= 0, learnt.maps.max() <= 1) == (True, True)
    shown = learnt.objects[:, 0] < 13
    assert 35 < int(shown.sum()) < 65
    assert torch.equal(learnt.objects[shown], objects[shown])
    assert (learnt.maps[shown, 0].amax((1, 2)) > 0.5).all()
    counts = [counted((maps[1] > 0.5).numpy()) for maps in learnt.maps[shown]]
    said = [plan["objects"][0]["count"] for plan, here in zip(plans, shown) if here]
    assert sum(a == b for a, b in zip(counts, said)) >= 0.9 * len(said)
    assert 4 <= int((learnt.maps[:, 0].amax((1, 2)) == 0).sum()) <= 18  # grounds alone, and noise
    assert torch.equal(learnt.images, lesson(eyes, apart, objects, colors, Rng(1)).images)


def test_warped_things_stay_where_they_are_and_stray_as_far_as_said():
    """A ramp across a square shows by its values how far each place has strayed."""
    across = (torch.arange(64) + 0.5) / 64
    thing = torch.stack((across.expand(64, 64), across[:, None].expand(64, 64), torch.zeros(64, 64)))
    square = torch.zeros(64, 64)
    square[16:48, 16:48] = 1
    thing = torch.cat((thing, square[None])).expand(20, 4, 64, 64)
    bent = standins.warped(thing, torch.full((20,), 0.2), Rng(3))
    strays = (bent - thing)[:, :2, 16:48, 16:48]
    assert strays.mean((2, 3)).abs().max() < 0.02
    torch.testing.assert_close(strays.square().sum(1).mean((1, 2)).sqrt(), torch.full((20,), 0.1), rtol=0.1, atol=0.01)
    assert torch.equal(standins.warped(thing, torch.zeros(20), Rng(3)), thing)


def test_outlines_are_ellipses_or_boxes_or_stray():
    box = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0, 0, 0, 0]])
    area = lambda *how: standins.contour(box, how[0], Rng(1), *how[1:])[0].mean()
    assert area(0) == pytest.approx(0.25 * 3.14159 / 4, abs=0.01)
    assert area(0, 30.0) == pytest.approx(0.25, abs=0.01)
    assert standins.contour(box, 0.4, Rng(1))[1].max() == 0
    assert (standins.contour(box, 0.4, Rng(1)) - standins.contour(box, 0, Rng(1)))[0].abs().mean() > 0.03


def test_compute_by_hand():
    """Four pictures: all right; wrong colour; wrong object; a zebra, of which no colour was asked."""
    found = saying(("train", "train", "bus", "zebra"), ("green", "red", "blue", "white"))
    asked = ("train", "train", "car", "zebra"), ("green", "blue", "blue", None)
    result = judge.compute(torch.zeros(4, 3, 8, 8), *asked, found)
    train = result["objects"].pop("train")
    assert train == {"object": 1.0, "color": 0.5, "both": 0.5, "count": 2, "colored": 2}
    assert result["objects"] == {
        "car": {"object": 0.0, "color": 1.0, "both": 0.0, "count": 1, "colored": 1},
        "zebra": {"object": 1.0, "color": None, "both": 1.0, "count": 1, "colored": 0},
    }
    assert (result["object"], result["color"], result["both"]) == (3 / 4, 2 / 3, 2 / 4)
    assert (result["count"], result["colored"]) == (4, 3)
    with pytest.raises(ValueError, match="4 images, 3 objects"):
        judge.compute(torch.zeros(4, 3, 8, 8), asked[0][:3], asked[1], found)
    with pytest.raises(ValueError, match="no images"):
        judge.compute(torch.zeros(0, 3, 8, 8), [], [], found)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 2, *[st.sampled_from("rg")] * 2, st.booleans()), min_size=1))
def test_compute_sums_up(rows):
    """Whole = weighted mean of the objects; both ≤ object; right about everything = 1."""
    asked, found, colors, named, blank = zip(*rows)
    wanted = [None if b else c for c, b in zip(colors, blank)]
    images = torch.zeros(len(rows), 3, 4, 4)
    result = judge.compute(images, asked, wanted, saying(found, named))
    for key, weight in (("object", "count"), ("both", "count"), ("color", "colored")):
        parts = [o for o in result["objects"].values() if o[weight]]
        total = sum(o[weight] for o in parts)
        assert result[weight] == total
        if total:
            assert result[key] == pytest.approx(sum(o[key] * o[weight] for o in parts) / total)
    assert result["both"] <= result["object"]
    assert judge.compute(images, asked, wanted, saying(asked, colors))["both"] == 1


def test_spoil_keeps_range_and_shape_and_follows_its_rng(drawn):
    images = drawn[0][:8]
    spoilt = classifier.spoil(images, Rng(5))
    assert spoilt.shape == images.shape
    assert spoilt.abs().max() <= 1
    assert torch.equal(spoilt, classifier.spoil(images, Rng(5)))
    assert 0.02 < (spoilt - images).abs().mean() < 0.5


def test_train_learns_and_its_probe_comes_back_from_disk(tmp_path):
    lines: list[str] = []
    probe, accuracy = judge.train(384, epochs=4, batch=32, tests=20, progress=lines.append)
    assert {"object", "count", "spoilt_color", "half_object", "ellipse_32_object", "bent_20_object"} < set(accuracy)
    losses = [float(line.split()[-1]) for line in lines[1:]]
    assert losses[-1] < 0.8 * losses[0]
    assert len(lines) == 5
    classifier.save(probe, tmp_path, {"accuracy": accuracy})
    again = judge.load(tmp_path)
    images = judge.real(20, 1)[0]
    for a, b in zip(probe(images), again(images)):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("spoilt", ["nothing", "json", "weights", "classes"])
def test_a_folder_that_is_no_probe_is_one_clear_line(tmp_path, spoilt):
    if spoilt != "nothing":
        classifier.save(Sight(["train"], ["red", "blue"]), tmp_path, {})
    if spoilt == "json":
        (tmp_path / classifier.DESCRIPTION).write_text("{")
    elif spoilt == "weights":
        (tmp_path / classifier.WEIGHTS).write_bytes((tmp_path / classifier.WEIGHTS).read_bytes()[:1000])
    elif spoilt == "classes":
        (tmp_path / classifier.DESCRIPTION).write_text('{"objects": ["train"], "colors": ["red"], "apart": false}')
    with pytest.raises(UserError, match="--train") as error:
        judge.load(tmp_path)
    assert "\n" not in str(error.value)


def test_script_prints_and_writes_the_shares(tmp_path, monkeypatch, capsys):
    """A model that draws perfectly what training shows, and grey for what it never saw."""
    pictures = {}
    for i in range(12):
        image, _, attributes = scenes.draw(3, i)
        pictures[i] = to_tensor(image.resize((64, 64))) * 2 - 1, attributes
    subjects = [a["objects"][0] for _, a in pictures.values()]
    asked = {
        "seen": [(f"prompt {i}", s["name"], s["color"]) for i, s in enumerate(subjects)],
        "held_out": [("grey", "train", "yellow")] * 12,
    }
    monkeypatch.setattr(scenes, "prompts", lambda which, count, seed: asked[which][:count])

    def stream(texts, truncation, noise, seeds):
        assert (truncation, noise, list(seeds)) == (0.7, "const", list(range(5, 17)))
        for k, text in enumerate(texts):
            yield pictures[k][0][None] if text != "grey" else torch.zeros(1, 3, 128, 128)

    model = SimpleNamespace(path=Path("runs/x"), kimg=12.0, stream=stream, resolution=64)
    monkeypatch.setattr(models, "load_model", lambda path, device: model)
    file = tmp_path / "new" / "probe.json"
    script().main(["--count", "12", "--seed", "5", "--truncation", "0.7", "--json", str(file)])
    figures = json.loads(file.read_text())
    assert all(isinstance(value, int | float) for value in figures.values())
    assert figures["seen/both"] == 1
    assert figures[f"seen/{subjects[0]['name']}/object"] == 1
    assert figures["held_out/both"] == figures["held_out/train/both"] == 0
    assert figures["drawn_seen/both"] > 0.8
    assert figures["drawn_held_out/count"] == 12
    assert (figures["kimg"], figures["seed"]) == (12, 5)
    assert figures["floor_background/object"] <= 0.1
    table = capsys.readouterr().out.splitlines()
    assert table[2].split() == ["seen", "pairs", "100.0%", "100.0%", "100.0%", "12"]
    assert table[3].split()[-2:] == ["0.0%", "12"]


def test_script_trains_and_refuses_nonsense(tmp_path, capsys):
    script().main(["--train", "--scenes", "128", "--epochs", "1", "--probe", str(tmp_path)])
    assert "spoilt color" in capsys.readouterr().out
    assert json.loads((tmp_path / classifier.DESCRIPTION).read_text())["trained"]["scenes"] == 128
    with pytest.raises(UserError, match="--count 0"):
        script().main(["--count", "0"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="another file"):
        files.write_figures(tmp_path / "file" / "x.json", {})
