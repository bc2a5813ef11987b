"""What becomes of a picture's captions in training: which are drawn, how they are varied, and which a mirrored picture
would make false."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from random import Random

_SIDE = re.compile(r"\b(left|right)(most|wards?|hand(ed)?|side)?\b", re.IGNORECASE)


def says_side(caption: str) -> bool:
    """Whether the caption says left or right ('the leftmost bus', 'a right-handed batter'), so that flipping its
    picture would make it false. Words that merely contain the letters (bright, leftovers) do not count."""
    return _SIDE.search(caption) is not None


def draw(captions: Sequence[str], one: float, two: float) -> tuple[int, int]:
    """The numbers of two captions of one picture with different words, or one's twice where there is only one.

    one, two: random numbers in [0, 1). The first caption does not depend on whether the second is wanted.
    """
    known = captions if len(set(captions)) == len(captions) else list(dict.fromkeys(captions))
    first = int(one * len(known))
    second = int(two * (len(known) - 1)) if len(known) > 1 else first
    second += second >= first and len(known) > 1  # one of those that the first has left
    if known is captions:
        return first, second
    return captions.index(known[first]), captions.index(known[second])


def vary(number: int, captions: Sequence[str], word_dropout: float, paraphrase: float, rng: Random) -> str:
    """Caption `number` of a picture, with probability `paraphrase` mixed with another of its captions, and then each
    of its words left out with probability `word_dropout`."""
    # Random.random() alone is promised to give the same numbers in every Python version.
    caption = captions[number]
    others = [other for other in captions if other != caption]
    if rng.random() < paraphrase and others:
        caption = mix(caption, others[int(rng.random() * len(others))], rng)
    return drop_words(caption, word_dropout, rng)


def mix(caption: str, other: str, rng: Random) -> str:
    """A paraphrase of two captions of one picture: of each stretch of words where they differ, one's or the other's.

    'A large bus on a street.' and 'A red bus driving down the street.' → 'A red bus on a street.' Both are true of
    the picture, so what is swapped at the same place between the same words nearly always is as well. Captions that
    share no word are swapped whole.
    """
    one, two = caption.split(), other.split()
    a_bare, b_bare = ([word.strip(".,;:!?\"'").lower() for word in words] for words in (one, two))
    words: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, a_bare, b_bare, autojunk=False).get_opcodes():
        words += two[c:d] if kind != "equal" and rng.random() < 0.5 else one[a:b]
    return " ".join(words) or caption


def drop_words(caption: str, share: float, rng: Random) -> str:
    """Leaves out each word with probability `share`, but never all of them."""
    if share <= 0:
        return caption
    words = caption.split()
    kept = [word for word in words if rng.random() >= share]
    return " ".join(kept or [words[int(rng.random() * len(words))]]) if words else caption
