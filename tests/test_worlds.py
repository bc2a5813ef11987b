"""Worlds are found by file name; and what the one of two objects and two colours draws and says."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from t2i import worlds
from t2i.data.draw import draw_world
from t2i.data.samples import Samples
from t2i.errors import UserError
from t2i.worlds import binding

ROOT = Path(__file__).parents[1]

TOY = """
from PIL import Image

def held_out(given, only):
    return {}

def draw(seed, index, size, held_out, only_held_out):
    return Image.new("RGB", (2 * size, 2 * size), "red"), [f"red number {index}"], {"objects": [], "number": index}
"""


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_world_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    assert worlds.known() == ["binding", "scenes"]
    monkeypatch.setattr(worlds, "__path__", [*worlds.__path__, str(tmp_path)])
    assert worlds.known() == ["binding", "scenes", "toy"]
    out = tmp_path / "shards"
    command = ["make_shards.py", "scenes", "--world", "toy", "--out", str(out), "--count", "3", "--size", "8"]
    monkeypatch.setattr(sys, "argv", [*command, "--workers", "1"])
    try:
        script("make_shards").main()
    finally:
        sys.modules.pop("t2i.worlds.toy")
    samples = Samples(str(out))
    assert [samples.read(i).captions for i in range(3)] == [[f"red number {i}"] for i in range(3)]
    assert [samples.read(i).meta["attributes"]["number"] for i in range(3)] == [0, 1, 2]
    assert samples.read(0).image.shape == (3, 8, 8)
    with pytest.raises(UserError, match=r"--world scene: no such world; .*did you mean 'scenes'"):
        worlds.find("scene")


@pytest.mark.parametrize("name", worlds.known())
def test_every_world_keeps_the_contract(name):
    world = worlds.find(name)
    for only in (False, True):
        items = list(world.held_out("default", only).values())
        image, captions, attributes = world.draw(3, 4, 16, items, only)
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert captions
        assert len(set(captions)) == len(captions)
        assert json.loads(json.dumps(attributes)) == attributes
        assert world.draw(3, 4, 16, items, only)[1:] == (captions, attributes)
    assert world.held_out("none", False) == {}


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
    draw_world("binding", tmp_path, 5, 2, 16, binding.HELD_OUT, workers=1)
    file = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["attributes"] for image in file["images"]] == [binding.draw(2, i, 16)[2] for i in range(5)]
    assert [a["caption"] for a in file["annotations"][:5]] == binding.draw(2, 0, 16)[1]


def test_held_out_takes_no_list_of_things(monkeypatch, tmp_path):
    command = ["make_shards.py", "scenes", "--world", "binding", "--out", str(tmp_path / "x"), "--count", "1"]
    for options, line in (["--held-out", "red boat"], "red boat"), (["--held-out", "none", "--only-held-out"], "none"):
        monkeypatch.setattr(sys, "argv", [*command, *options])
        with pytest.raises(UserError, match=f"--held-out {line}: --world binding knows default"):
            script("make_shards").main()
    assert not list(tmp_path.iterdir())
