"""What a model can do by category: prompts by rule, right answers by hand, floors and ceiling."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from t2i import model as models
from t2i.errors import UserError
from t2i.metrics import categories
from t2i.metrics.categories import right
from t2i.probes import binding as binding_judge
from t2i.probes import scenes as scenes_judge
from t2i.probes.measure import Asked
from t2i.probes.sight import Seen
from t2i.worlds import Question, binding, scenes

SCRIPT = Path(__file__).parents[1] / "scripts" / "probe.py"


def run(*words: str) -> None:
    spec = importlib.util.spec_from_file_location("probe_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(list(words))


def test_right_by_hand():
    kites, two = [Seen("kite", "red", 3, 0.7)], [Seen("car", "red", 1, 0.7), Seen("boat", "blue", 1, 0.2)]
    ask = lambda *things, **more: Question("", things, {}, **more)
    kite, car, boat = (None, "kite"), ("red", "car"), (None, "boat")
    assert right(kites, ask(kite))
    assert not right([], ask(kite))
    assert not right(kites, ask(boat))
    assert [right(kites, ask(kite, count=n)) for n in (2, 3)] == [False, True]
    assert [right(kites, ask(kite, side=side)) for side in ("left", "right")] == [False, True]
    assert right(two, ask(car, boat))
    assert not right(two, ask(car, ("red", "boat")))
    assert not right(two[:1], ask(car, boat))
    assert [right(two, ask(boat, car, side=side)) for side in ("left", "right")] == [True, False]


@pytest.mark.parametrize("world", [scenes, binding])
def test_every_category_is_asked_or_said_to_lack(world):
    asked = {"single object", "two objects", "counting", "colours", "position", "colour binding"}
    assert set(world.CATEGORIES) | set(world.LACKS) == asked
    assert not set(world.CATEGORIES) & set(world.LACKS)
    for category in world.CATEGORIES:
        questions = world.questions(category, "seen", 30, 3)
        assert len(questions) == 30
        assert questions[:10] == world.questions(category, "seen", 10, 3)
        assert questions != world.questions(category, "seen", 30, 4)
        for q in questions:  # the plan is a right answer
            kinds = [Seen(o["name"], o["color"], o["count"], o["box"][0] + o["box"][2] / 2) for o in q.plan["objects"]]
            assert right(kinds, q), q
            assert all(name in q.prompt.lower() for _, name in q.things)


def test_prompts_say_what_is_asked_and_no_more():
    for q in scenes.questions("counting", "seen", 60):
        words = {2: r"two|a couple of|a pair of", 3: "three", 4: "four"}
        several = re.search(
            r"\b(two|a couple of|a pair of|three|four|several|a group of|a bunch of)\b", q.prompt.lower()
        )
        assert (several is None) == (q.count == 1), q.prompt
        assert q.count == 1 or re.fullmatch(words[q.count], several[0]), q.prompt
    assert {q.count for q in scenes.questions("counting", "seen", 60)} == {1, 2, 3, 4}
    for q in scenes.questions("position", "seen", 20):
        assert f"on the {q.side} side" in q.prompt
    for q in scenes.questions("single object", "seen", 26):
        assert not re.search(rf"\b({'|'.join(scenes.OBJECTS['train'])}) {q.things[0][1]}", q.prompt.lower())
    assert {q.things[0] for q in scenes.questions("colours", "held_out", 8)} == set(scenes.HELD_OUT)
    assert scenes.questions("counting", "held_out", 5) == []
    for q in binding.questions("position", "held_out", 20):
        assert " left" in q.prompt or " right" in q.prompt
    couples = {q.things for q in binding.questions("colour binding", "held_out", 12)}
    assert {frozenset(two) for two in couples} == {frozenset(two) for two in binding.HELD_OUT}


def test_drawn_pictures_are_right_and_noise_is_not():
    for world, judge in ((scenes, scenes_judge), (binding, binding_judge)):
        eyes = judge.load()
        for category in world.CATEGORIES:
            asked = world.questions(category, "seen", 60, 5)
            for side in (64, 32):
                seen = eyes.look(categories.truth(world, asked, side, 987654))
                assert sum(map(right, seen, asked)) >= 55, (category, side)
            noise = eyes.look(2 * torch.rand(60, 3, 64, 64) - 1)
            assert sum(map(right, noise, asked)) <= 3, category


def test_command_prints_a_row_a_category(tmp_path, monkeypatch, capsys):
    """A model that draws the first question's picture whatever it is asked."""
    first = binding.questions("two objects", "seen", 1)
    picture = categories.truth(binding, first, 32, 5)

    def stream(texts, truncation, noise, seeds):
        yield from (picture for _ in texts)

    model = SimpleNamespace(path=Path("runs/x"), kimg=12.0, stream=stream, resolution=32)
    monkeypatch.setattr(models, "load_model", lambda path, device: model)
    file = tmp_path / "categories.json"
    run("--categories", "--world", "binding", "--count", "12", "--json", str(file))
    figures = json.loads(file.read_text())
    name = "two objects, seen"
    same = [set(q.things) for q in binding.questions("two objects", "seen", 12)]  # either may be named first
    share = same.count(set(first[0].things)) / 12
    assert figures[f"{name}/share"] == pytest.approx(share)
    assert figures[f"{name}/low"] < share < figures[f"{name}/high"]
    assert figures[f"{name}/others"] == pytest.approx(share)  # it never looks at what it is asked
    assert figures[f"{name}/noise"] == 0
    assert figures[f"{name}/drawn"] >= 0.9
    said = capsys.readouterr().out
    assert "runs/x (12 kimg), 32×32" in said
    rows = [line for line in said.splitlines() if line.startswith(("two objects,", "colour binding,", "position,"))]
    assert len(rows) == 6
    assert "counting: not in this world, of every object there is one" in said


def test_a_world_without_questions_is_one_line(monkeypatch):
    monkeypatch.delattr(binding, "questions")
    with pytest.raises(UserError, match="--categories: the world binding asks no questions"):
        categories.judge(Asked("binding"))
