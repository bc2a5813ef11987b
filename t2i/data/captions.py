"""What is drawn from a picture's captions, and which captions a mirrored picture would make false."""

import re
from collections.abc import Sequence
from random import Random

_SIDE = re.compile(r"\b(left|right)(most|wards?|hand(ed)?|side)?\b", re.IGNORECASE)


def says_side(caption: str) -> bool:
    """Whether the caption says left or right ('the leftmost bus', 'a right-handed batter'), so that flipping its
    picture would make it false. Words that merely contain the letters (bright, leftovers) do not count."""
    return _SIDE.search(caption) is not None


def draw(captions: Sequence[str], rng: Random) -> tuple[str, str]:
    """Two captions of one picture with different words, or the same one twice where there is only one.

    Both are always drawn, so that the first does not depend on whether the second is wanted.
    """
    # Random.random() alone is promised to give the same numbers in every Python version.
    known = list(dict.fromkeys(captions))
    first = known.pop(int(rng.random() * len(known)))
    second = rng.random()
    return first, known[int(second * len(known))] if known else first
