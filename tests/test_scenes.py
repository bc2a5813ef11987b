"""The drawn world: the same everywhere, said truly, and without what is held out."""

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from t2i.data.draw import draw_world
from t2i.errors import UserError
from t2i.painting.pen import PALETTE
from t2i.worlds import scenes
from t2i.worlds.scenes._captions import describe

seeds = st.integers(0, 2**40)
indices = st.integers(0, 2**31)


def every_pair(attributes: dict) -> set[tuple]:
    return {(o["color"], o["name"]) for o in attributes["objects"]}


@settings(max_examples=20, deadline=None)
@given(seeds, indices)
def test_a_picture_depends_on_seed_and_index_alone(seed, index):
    first, second = scenes.draw(seed, index), scenes.draw(seed, index)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1:] == second[1:]
    assert first[0].size == (128, 128)
    assert first[0].mode == "RGB"
    other = scenes.draw(seed, index + 1)
    assert other[0].tobytes() != first[0].tobytes()


def test_size_changes_the_pixels_not_the_picture():
    small, captions, attributes = scenes.draw(3, 5, size=32)
    large, same_captions, same_attributes = scenes.draw(3, 5, size=128)
    assert (small.size, large.size) == ((64, 64), (256, 256))
    assert (captions, attributes) == (same_captions, same_attributes)
    difference = np.asarray(large.reduce(4), float) - np.asarray(small, float)
    assert np.abs(difference).mean() < 6  # the same but for edges


def test_make_is_the_same_whatever_count_and_workers(tmp_path):
    told = []
    few = draw_world("scenes", tmp_path / "few", 120, 4, 32, scenes.HELD_OUT, workers=1, progress=told.append)
    many = draw_world("scenes", tmp_path / "many", 240, 4, 32, scenes.HELD_OUT, workers=2)
    assert sum(told) == 120
    for path in sorted((few / "images").iterdir()):
        assert path.read_bytes() == (many / "images" / path.name).read_bytes()
    one, two = (json.loads((folder / "annotations.json").read_text()) for folder in (few, many))
    assert one["images"] == two["images"][:120]
    assert one["annotations"] == two["annotations"][:600]
    assert len(list((many / "images").iterdir())) == 240


def test_make_writes_coco_captions(tmp_path, capsys):
    folder = draw_world("scenes", tmp_path, 12, 1, 32, scenes.HELD_OUT, workers=1)
    coco = COCO(str(folder / "annotations.json"))
    assert len(coco.imgs) == 12
    for i, image in coco.imgs.items():
        drawn, captions, attributes = scenes.draw(1, i, size=32)
        assert [a["caption"] for a in coco.imgToAnns[i]] == captions
        assert image["attributes"] == json.loads(json.dumps(attributes))
        assert image["license"] in {x["id"] for x in coco.dataset["licenses"]}
        with Image.open(folder / "images" / image["file_name"]) as stored:
            assert stored.size == (image["width"], image["height"]) == drawn.size
            error = np.asarray(stored, float) - np.asarray(drawn, float)
        assert np.abs(error).mean() < 2.5
    assert len(coco.anns) == 60


def test_held_out_pairs_never_occur_and_all_others_do():
    seen: Counter = Counter()
    allowed = scenes.allowed(scenes.HELD_OUT, False)
    for i in range(6000):
        seen.update(every_pair(scenes.plan_picture(random.Random(i), allowed, scenes.HELD_OUT)))
    assert not set(seen) & set(scenes.HELD_OUT)
    coloured = {(c, name) for name, colors in scenes.OBJECTS.items() for c in colors}
    assert coloured - set(scenes.HELD_OUT) <= set(seen)
    assert {name for _, name in seen} == {*scenes.SUBJECTS, "plate", "table", "television"}


def test_held_out_colours_and_objects_are_learnt_from_other_pairs():
    seen = scenes.pairs("seen")
    for color, name in scenes.HELD_OUT:
        assert color in scenes.OBJECTS[name]
        assert sum(c == color for c, _ in seen) >= 3
        assert sum(n == name for _, n in seen) >= 3
    assert ("green", "train") in seen
    assert set(scenes.pairs("held_out")) == set(scenes.HELD_OUT)
    assert set(scenes.pairs("all")) == set(seen) | set(scenes.HELD_OUT)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_hold_out_reaches_what_comes_along_and_its_opposite(seed):
    """Plates and tables are held out too; only_held_out shows the pairs as subjects and nowhere else."""
    held_out = (("white", "plate"), ("brown", "table"), ("blue", "plate"), ("red", "couch"), ("green", "apple"))
    for i in range(4):
        _, captions, attributes = scenes.draw(seed, i, 16, held_out)
        assert not every_pair(attributes) & set(held_out)
        _, captions, attributes = scenes.draw(seed, i, 16, held_out, only_held_out=True)
        pairs = [(o["color"], o["name"]) for o in attributes["objects"]]
        assert pairs[0] in held_out
        assert not set(pairs[1:]) & set(held_out)
        assert any(pairs[0][0] in c.lower() for c in captions)


@pytest.mark.parametrize(
    ("held_out", "only", "says"),
    [
        ([("green", "trian")], False, "did you mean 'train'"),
        ([("gren", "train")], False, "did you mean 'green'"),
        ([(c, "horse") for c in scenes.OBJECTS["horse"]], False, "every colour of horse"),
        ([(c, "plate") for c in scenes.OBJECTS["plate"]] + [("red", "apple")], True, "every colour of plate"),
        ([], True, "no held-out pair"),
    ],
)
def test_wrong_hold_out_is_one_clear_line(tmp_path, held_out, only, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        draw_world("scenes", tmp_path, 1, 0, 64, held_out, only, workers=1)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_every_colour_is_in_the_picture_where_the_box_says():
    """Each subject's box holds much of its colour, and its place in the picture without it holds none or little."""
    least: dict[tuple, float] = {}
    for i in range(500):
        image, _, attributes = scenes.draw(11, i, 32, held_out=())
        subject = attributes["objects"][0]
        if not subject["color"]:
            continue
        pixels = np.asarray(image, float)
        share = 0.0
        for x, y, w, h in (np.array(subject["boxes"]) * 64).round().astype(int):
            inside = pixels[y : y + h, x : x + w].reshape(-1, 3)
            share += (np.abs(inside - PALETTE[subject["color"]]).max(1) < 32).mean() / subject["count"]
        pair = subject["color"], subject["name"]
        least[pair] = min(share, least.get(pair, 1.0))
    assert len(least) > 70
    assert min(least.values()) > 0.1, min(least.items(), key=lambda item: item[1])


@settings(max_examples=100, deadline=None)
@given(seeds, indices)
def test_boxes_lie_inside_and_subjects_are_large(seed, index):
    plan = scenes.plan_picture(random.Random(f"{seed}/{index}"), scenes.allowed((), False), ())
    for thing in plan["objects"]:
        x, y, w, h = thing["box"]
        assert min(x, y) >= 0
        assert max(x + w, y + h) <= 1.0001
    subject = plan["objects"][0]
    assert subject["box"][2] >= 0.3
    assert len(subject["boxes"]) == subject["count"]


COUNTS = {
    "two": {2},
    "couple": {2},
    "pair": {2},
    "three": {3},
    "four": {4},
    "several": {3, 4},
    "group": {3},
    "bunch": {4},
}
TIMES = {
    "day": "(sunny day|the day|daytime|blue sky)",
    "sunset": "(sunset|sun sets|evening|dusk)",
    "cloudy": "(cloudy|gray)",
    "night": r"(night|dark\b)",
}
AROUND = {"trees": "trees", "buildings": "(buildings|in the city$)", "hills": "(hills|countryside)", "fence": "fence"}
NOUNS = {
    "train": "train", "bus": "(bus|buses)", "car": "cars?", "boat": "(boats?|sailboat)", "skier": "(skier|person|man)",
    "zebra": "zebras?", "horse": "horses?", "couch": "(couch|sofa)", "apple": "apples?", "banana": "bananas?",
    "orange": "oranges?", "kite": "kites?", "umbrella": "umbrella",
}  # fmt: skip


def check_claims(caption: str, attributes: dict) -> bool:
    """Every colour, count, place and circumstance that the caption names is so. Returns whether it names the
    subject's colour."""
    text = caption.lower().rstrip(".")
    subject, ground = attributes["objects"][0], attributes["background"]
    others = {o["name"]: o for o in attributes["objects"][1:]}
    assert re.search(rf"\b{NOUNS[subject['name']]}\b", text)

    rest = text
    for thing, pattern in (("plate", r"(\w+) (?:plate|dish)"), ("table", r"(\w+) table")):
        for word in re.findall(pattern, rest):
            assert word not in PALETTE or word == others[thing]["color"]
        rest = re.sub(pattern, "", rest)
    if found := re.search(r"with (\w+) walls", rest):
        assert found[1] == ground["wall"]
    rest = re.sub(r"with \w+ walls|blue sky|green hills", "", rest)
    if subject["name"] == "orange":
        rest = re.sub(r"\boranges?\b", "", rest)
    colors = [word for word in re.findall(r"\w+", rest) if word in PALETTE]
    assert set(colors) <= {subject["color"]}
    assert len(colors) <= 1

    counted = [numbers for word, numbers in COUNTS.items() if re.search(rf"\b{word}\b(?! cars)", text)]
    assert all(subject["count"] in numbers for numbers in counted)
    assert len(counted) == (subject["count"] > 1)
    assert not re.search(r"\ba(?= [aeiou])|\ban(?= [^aeiou])|\s\s|[{}]", text)

    for time, pattern in TIMES.items():
        if re.search(pattern, text):
            assert ground["time"] == time
    for what, pattern in AROUND.items():
        if re.search(pattern, text):
            assert ground["around"] == what
    middle = subject["box"][0] + subject["box"][2] / 2
    if "on the left" in text:
        assert middle < 0.5
    if "on the right" in text:
        assert middle > 0.5
    if found := re.search(r"(?:heading to the|moving to the|facing) (\w+)", text):
        assert found[1] == subject["facing"]
    for word in ("television", "table", "chair"):
        if re.search(rf"(?<!wooden )\b{word}\b", text) and not re.search("(plate|dish).* table", text):
            assert word in others or ground.get(word)
    for word in ("lamp", "window"):
        if re.search(rf"\b{word}\b", text):
            assert ground["decor"] == word
    if "double decker" in text:
        assert subject["kind"] == "double decker"
    if "sailboat" in text or "sail boat" in text:
        assert subject["kind"] == "sailboat"
    if subject["name"] == "kite" and re.search("person|man", text):
        assert ground["person"]
    return bool(colors)


@settings(max_examples=200, deadline=None)
@given(seeds, indices)
def test_captions_are_distinct_true_and_name_the_colour(seed, index):
    attributes = scenes.plan_picture(random.Random(f"{seed}/{index}/plan"), scenes.allowed((), False), ())
    captions = describe(attributes, scenes.SCENES[attributes["scene"]], random.Random(f"{seed}/{index}/words"))
    assert len(set(captions)) == 5
    named = [check_claims(caption, attributes) for caption in captions]
    assert all(c[0].isupper() and c.endswith(".") for c in captions)
    assert sum(named) in ((3, 4) if attributes["objects"][0]["color"] else (0,))


def test_a_false_claim_would_be_noticed():
    _, captions, attributes = next(
        drawn for drawn in (scenes.draw(0, i, 16) for i in range(100)) if drawn[2]["scene"] == "tracks"
    )
    true, false = attributes["objects"][0]["color"], "pink"
    caption = next(c for c in captions if f" {true} " in c)
    with pytest.raises(AssertionError):
        check_claims(caption.replace(true, false), attributes)
    with pytest.raises(AssertionError):
        check_claims(caption.replace("train", "kite"), attributes)
    with pytest.raises(AssertionError):
        check_claims("Two trains on the tracks.", attributes)


def test_prompts_name_object_and_colour_and_cover_the_pairs():
    for which in ("seen", "held_out", "all"):
        pairs = scenes.pairs(which)
        made = scenes.prompts(which, 2 * len(pairs), seed=3)
        assert Counter((c, o) for _, o, c in made) == dict.fromkeys(pairs, 2)
        for text, name, color in made:
            assert name in text.lower()
            assert color is None or re.search(rf"\b{color}\b", text.lower())
    assert scenes.prompts("seen", 20, 1) == scenes.prompts("seen", 50, 1)[:20]
    assert scenes.prompts("seen", 20, 1) != scenes.prompts("seen", 20, 2)
    own = scenes.prompts([("green", "train"), (None, "zebra")], 4)
    assert sorted((o, c or "") for _, o, c in own) == [("train", "green")] * 2 + [("zebra", "")] * 2
    with pytest.raises(UserError, match="did you mean 'zebra'"):
        scenes.prompts([("green", "zebr")], 1)
