"""How captions are varied: what stays true of them, and that the loader does it the same way always."""

import json
import tarfile
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i import config
from t2i.data import captions
from t2i.data.loader import Loader
from t2i.errors import UserError

WORDS = st.lists(st.sampled_from(["a", "red", "bus", "on", "the", "street.", "Bus"]), min_size=1, max_size=8)
SENTENCES = WORDS.map(" ".join)
ONE, TWO = "A large bus on a street.", "A red bus driving down the street."


class Given:
    """A generator that says what it is told."""

    def __init__(self, *numbers: float):
        self.numbers = iter(numbers)

    def random(self) -> float:
        return next(self.numbers)


def test_a_mixture_by_hand():
    # They agree on: a … bus … street. Between lie large/red and "on a"/"driving down the".
    assert captions.mix(ONE, TWO, Given(0.1, 0.9)) == "A red bus on a street."
    assert captions.mix(ONE, TWO, Given(0.9, 0.1)) == "A large bus driving down the street."
    assert captions.mix("a bus", "a red bus", Given(0.1)) == "a red bus"
    assert captions.mix("two zebras", "an animal", Given(0.1)) == "an animal"  # nothing in common: swapped whole


@given(SENTENCES, SENTENCES, st.integers(0, 99))
def test_a_mixture_holds_words_of_both_alone(one, two, seed):
    mixed = captions.mix(one, two, Random(seed))
    assert mixed
    assert set(mixed.split()) <= set(one.split()) | set(two.split())
    assert captions.mix(one, one, Random(seed)) == one


@given(SENTENCES, st.floats(0, 0.99), st.integers(0, 99))
def test_dropped_words_leave_the_others_in_their_order(caption, share, seed):
    kept = captions.drop_words(caption, share, Random(seed)).split()
    rest = iter(caption.split())
    assert kept
    assert all(word in rest for word in kept)  # a subsequence


def test_the_share_of_dropped_words():
    caption, rng = " ".join(["word"] * 100), Random(0)
    left = sum(len(captions.drop_words(caption, 0.3, rng).split()) for _ in range(100)) / 10_000
    assert left == pytest.approx(0.7, abs=0.02)
    assert captions.drop_words(caption, 0.0, rng) == caption


def test_variation_off_changes_nothing():
    assert captions.vary(0, [ONE, TWO], 0.0, 0.0, Random(0)) == ONE
    assert captions.vary(0, [ONE], 0.0, 1.0, Random(0)) == ONE  # no other caption to mix with


def take(shards, count, **options):
    batches = iter(Loader(str(shards), **{"batch": 8, "workers": 0, **options}))
    taken = list(islice(batches, count))
    batches.close()
    return taken


def test_batches_hold_varied_captions(tiny_shards):
    stored = {}
    for path in tiny_shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith("json"):
                    meta = json.load(tar.extractfile(name))
                    stored[meta["image_id"]] = meta["captions"]
    options = {"word_dropout": 0.2, "paraphrase": 0.5, "two_captions": True, "mirror": True}
    plain, varied = take(tiny_shards, 5), take(tiny_shards, 5, **options)
    changed = 0
    for before, batch in zip(plain, varied, strict=True):
        assert before.image_id.equal(batch.image_id)
        for i, was, one, two in zip(batch.image_id.tolist(), before.captions, batch.captions, batch.captions2):
            changed += one != was
            assert one != two
            known = {word.strip(".") for caption in stored[i] for word in caption.split()}
            assert {word.strip(".") for word in f"{one} {two}".split()} <= known
    assert 20 < changed <= 40
    # A function of seed and position: neither workers nor processes nor a start in the middle change anything.
    rows = [(b.captions, b.captions2, b.image.tolist()) for b in varied]
    assert [(b.captions, b.captions2, b.image.tolist()) for b in take(tiny_shards, 5, workers=2, **options)] == rows
    assert take(tiny_shards, 1, start=24, **options)[0].captions == rows[3][0]
    for rank in range(2):
        part = take(tiny_shards, 2, rank=rank, world=2, **{**options, "batch": 4})
        assert [b.captions for b in part] == [one[rank::2] for one, _, _ in rows[:2]]
    assert take(tiny_shards, 2, **{**options, "batch": 16})[1].captions == rows[2][0] + rows[3][0]


@pytest.mark.parametrize(
    "wrong", ["data.word_dropout=1", "data.paraphrase=1.5", "text.noise=1", "text.source=pictures"]
)
def test_mistakes(wrong):
    with pytest.raises(UserError, match=wrong.replace(".", r"\.")):
        config.load(None, [wrong])
    with pytest.raises(UserError, match=r"text\.source=image.*encoders\.clip=scenes-clip-score"):
        config.load(None, ["text.source=image", "encoders.clip=scenes-clip-score"])
