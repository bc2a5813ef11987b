"""Two objects, two colours: what is drawn, what is said, and who has which."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from t2i.data import binding, scenes
from t2i.errors import UserError
from t2i.metrics import binding as judge

ROOT = Path(__file__).parents[1]


def said(caption):
    return set(re.findall(rf"({'|'.join(binding.COLORS)}) ({'|'.join(binding.OBJECTS)})", caption))


def shown(plan):
    return {(thing["color"], thing["name"]) for thing in plan["objects"]}


def test_every_caption_gives_both_objects_their_colours_and_places():
    texts = set()
    for i in range(100):
        _, captions, plan = binding.draw(3, i, 16)
        left, right = plan["objects"]
        assert left["box"][0] + left["box"][2] <= 0.5 <= right["box"][0]
        assert len(set(captions)) == 5
        for text in captions:
            assert said(text) == shown(plan)
            texts.add(text)
            if match := re.search(r"\w+ (\w+) (?:to|on) the (left|right)", text):
                assert match[1] == {"left": left, "right": right}[match[2]]["name"]
    assert any(re.search(r"an? \w+ car .* boat", t) for t in texts)  # in either order
    assert any(re.search(r"an? \w+ boat .* car", t) for t in texts)
    one, other = binding.draw(3, 5, 16), binding.draw(3, 5, 16)
    assert one[0].tobytes() == other[0].tobytes()
    assert one[1:] == other[1:]


def test_held_out_couples_are_left_out_but_not_exchanged():
    every, seen, held_out = (set(binding.couples(which)) for which in ("all", "seen", "held_out"))
    assert every == seen | held_out
    assert held_out == set(binding.HELD_OUT)
    assert all(((d, a), (c, b)) in seen for (c, a), (d, b) in held_out)
    couple = lambda plan: tuple(sorted(shown(plan), key=lambda thing: binding.OBJECTS.index(thing[1])))
    assert {couple(binding.draw(0, i, 4)[2]) for i in range(60)} <= seen
    assert {couple(binding.draw(0, i, 4, only_held_out=True)[2]) for i in range(60)} <= held_out
    made = binding.prompts("held_out", 24, seed=1)
    assert sorted(two for _, two in made) == sorted(2 * list(binding.HELD_OUT))
    assert all(said(text) == set(two) for text, two in made)
    with pytest.raises(UserError, match="couples=some"):
        binding.couples("some")


def test_the_files_hold_what_was_drawn(tmp_path):
    scenes.make(tmp_path, 5, seed=2, size=16, held_out=binding.HELD_OUT, workers=1, world="binding")
    file = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["attributes"] for image in file["images"]] == [binding.draw(2, i, 16)[2] for i in range(5)]
    assert [a["caption"] for a in file["annotations"][:5]] == binding.draw(2, 0, 16)[1]


def test_held_out_takes_no_list_of_things():
    command = [sys.executable, "scripts/make_shards.py", "scenes", "--world", "binding", "--out", "x", "--count", "1"]
    done = subprocess.run([*command, "--held-out", "red boat"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--held-out red boat" in done.stderr
    assert "Traceback" not in done.stderr


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
    probe, accuracy = judge.train(128, epochs=1, batch=32, tests=32)
    assert 0 <= accuracy["all"] <= accuracy["each"] <= 1
    judge.save(probe, tmp_path, {"accuracy": accuracy})
    images = judge.real(4, 1)[0]
    torch.testing.assert_close(judge.load(tmp_path)(images), probe(images), rtol=0.02, atol=0.02)
    (tmp_path / "probe.json").write_text('{"objects": ["train"], "colors": ["red"]}')
    with pytest.raises(UserError, match="--binding --train"):
        judge.load(tmp_path)
