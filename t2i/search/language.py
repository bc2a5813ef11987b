"""The two small languages of a search: what is optimised (clip+0.1*d) and where (w+noise)."""

import math
from typing import NamedTuple

from t2i.errors import UserError, closest


class Term(NamedTuple):
    """Of an objective; t2i/search/objectives.py computes it."""

    judge: str  # CLIP or discriminator
    says: str  # of a picture with a high score


TERMS = {
    "clip": Term("CLIP", "like the prompt"),
    "contrast": Term("CLIP", "like the prompt and unlike it in other colours"),
    "d": Term("discriminator", "real"),
    "d_text": Term("discriminator", "like the prompt"),
    "d_contrast": Term("discriminator", "like the prompt and unlike it in other colours"),
    "typical": Term("CLIP", "like plain samples of the prompt"),
}
LATENTS = ("z", "w")  # the latent, or StyleGAN's style
EXTRAS = ("noise", "truncation")  # what may be searched beside it


def parse_objective(given: str) -> list[dict[str, float]]:
    """'clip+0.1*d,typical' → [{'clip': 1, 'd': 0.1}, {'typical': 1}]."""
    parts = []
    for words in given.split(","):
        part = {}
        for word in words.split("+"):
            number, _, name = word.rpartition("*")
            name = name.strip()
            if name not in TERMS:
                raise UserError(f"--objective {given}: {name!r} is no term; {closest(name, TERMS)}")
            try:
                part[name] = float(number) if number else 1.0
            except ValueError:
                raise UserError(f"--objective {given}: weight {number!r} is no number; write 0.1*{name}") from None
            if not math.isfinite(part[name]) or part[name] == 0:
                raise UserError(f"--objective {given}: weight {number}; a number other than 0")
        parts.append(part)
    return parts


def name_objective(part: dict[str, float]) -> str:
    """{'clip': 1, 'd': 0.1} → 'clip+0.1*d'."""
    return "+".join((f"{weight:g}*" if weight != 1 else "") + term for term, weight in part.items())


def parse_space(kind: str) -> tuple[str, list[str]]:
    """'w+noise' → 'w', ['noise']."""
    latent, *extras = kind.split("+")
    if latent not in LATENTS:
        raise UserError(f"--space {kind}: starts with z or w, then perhaps +truncation and +noise")
    for extra in extras:
        if extra not in EXTRAS:
            raise UserError(f"--space {kind}: {extra!r} is no coordinate; {closest(extra, EXTRAS)}")
    return latent, extras
