"""What pictures are searched for: functions from pictures [n, 3, H, W] in [-1, 1] to scores [n], higher is better.

Any such function will do. All that is random in them is drawn once, so that every candidate is judged alike.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from t2i.encoders.clip import Clip, resample
from t2i.interfaces import Text
from t2i.model import Model
from t2i.rng import Rng

Objective = Callable[[Tensor], Tensor]
CROP = 0.9  # the least side of a view, as a share of the picture's: what training showed its encoder too
JITTER = 0.1  # the most by which brightness, contrast and saturation of a view change
NOISE = 0.3  # standard deviation of the noise on a view: it hides the fine patterns that only fool an encoder
# Basic colour terms (Berlin & Kay 1969).
COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown", "gray", "grey"]


@dataclass
class Objectives:
    """One column a name in `parts`, each a weighted sum of terms."""

    terms: dict[str, Objective]
    parts: list[dict[str, float]] = field(default_factory=list)  # [{term: weight}]; several for NSGA-II

    def __post_init__(self):
        self.parts = self.parts or [dict.fromkeys(self.terms, 1.0)]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures → terms [n, terms] unweighted, objectives [n, parts]; both float32."""
        terms = {name: term(images).float() for name, term in self.terms.items()}
        parts = [sum(w * terms[name] for name, w in part.items()) for part in self.parts]
        return torch.stack(list(terms.values()), 1), torch.stack(parts, 1)  # type: ignore[arg-type]


def cache_last(read: Callable[..., Any]) -> Callable[..., Any]:
    """`read`, which remembers what it made of the last pictures: terms that read the same features pay once."""
    last: list[Any] = []

    def remembered(images: Tensor, *rest: Any) -> Any:
        asked = (images, torch.is_grad_enabled())
        if not last or last[0] is not asked[0] or last[1] != asked[1]:
            last[:] = *asked, read(images, *rest)
        return last[2]

    return remembered


def clip_features(clips: list[Clip], prompt: str, views: int = 1, seed: int = 0) -> Callable[[Tensor], list[Tensor]]:
    """From pictures to the mean over fixed views of each encoder's features, [n, C] each.

    The first view is the picture as it is, every other a crop, perhaps mirrored, in another light and noisy (after
    FuseDream's augmentation, 2112.01573): what only fools the encoder seldom survives it. A prompt that says left or
    right is not mirrored.
    """
    drawn = draw_views(views, seed, mirror=not re.search(r"\b(left|right)", prompt.lower()))

    def read(images: Tensor) -> list[Tensor]:
        seen = [view(images, max(clip.size for clip in clips)) for view in drawn]
        return [torch.stack([clip.features(x) for x in seen]).mean(0) for clip in clips]

    return read


def directional_similarity(features: Callable[[Tensor], list[Tensor]], directions: list[Tensor]) -> Objective:
    """The product of features and a direction [C] an encoder, the mean over encoders."""
    return lambda images: torch.stack([f @ d for f, d in zip(features(images), directions)]).mean(0)


def clip_similarity(clips: list[Clip], prompt: str, views: int = 1, seed: int = 0) -> Objective:
    """The mean cosine of a picture's features and the prompt's, over fixed views and over encoders."""
    sentences = [clip.text([prompt]).sentence[0] for clip in clips]
    return directional_similarity(clip_features(clips, prompt, views, seed), sentences)


def recolor(prompt: str) -> list[str]:
    """The prompt with each of its colours in turn swapped for every other one; none where it names no colour."""
    found = list(re.finditer(rf"\b({'|'.join(COLORS)})\b", prompt, re.IGNORECASE))
    return [
        prompt[: m.start()] + color + prompt[m.end() :]
        for m in found for color in COLORS[:-1] if color != m[0].lower().replace("grey", "gray")
    ]  # fmt: skip


def contrast_direction(encoder: Any, prompt: str) -> Tensor:
    """[C] the prompt's sentence less the mean of the recoloured ones: similarity to it is a contrast."""
    sentence, others = encoder([prompt]).sentence[0], recolor(prompt)
    return sentence - encoder(others).sentence.mean(0) if others else sentence


def draw_views(views: int, seed: int, mirror: bool = True) -> list[Callable[[Tensor, int], Tensor]]:
    """Functions from pictures [n, 3, H, W] and a size to [n, 3, size, size] views of them."""
    rng = Rng(seed)
    drawn: list[Callable[[Tensor, int], Tensor]] = [lambda images, size: images]
    for _ in range(views - 1):
        u, key = [rng.uniform() for _ in range(7)], int(2**31 * rng.uniform())

        def view(images: Tensor, size: int, u: list[float] = u, key: int = key) -> Tensor:
            side = CROP + (1 - CROP) * u[0]
            place = images.new_tensor([[(1 - side) * u[1], (1 - side) * u[2]]])
            x = resample(images, size, images.new_tensor([side]), place)
            x = x.flip(3) if mirror and u[3] < 0.5 else x
            brightness, contrast, saturation = (JITTER * (2 * v - 1) for v in u[4:])
            x = x + brightness
            x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, 1 + contrast)
            x = torch.lerp(x.mean(1, keepdim=True), x, 1 + saturation)
            return (x + NOISE * _fixed_noise(key, size, x.device).to(x.dtype)).clamp(-1, 1)

        drawn.append(view)
    return drawn


@lru_cache(maxsize=64)  # views × sizes: drawn and sent to the device once, not with every micro-batch
def _fixed_noise(key: int, size: int, device: torch.device) -> Tensor:
    """[3, size, size] float32 N(0, 1), the same for all pictures and on every device."""
    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(key)).to(device)


def discriminator_logit(critic: Any, text: Text) -> Objective:
    """How real the discriminator takes a picture of this prompt (text of one row) to be."""
    return lambda images: critic(images, text[[0] * len(images)]).logit


def discriminator_similarity(critic: Any, text: Text, direction: Tensor) -> Objective:
    """The product of the discriminator's embedding of a picture, at unit length, with a direction [C] of sentences:
    what img_txt_d trains."""
    unit = torch.nn.functional.normalize
    return lambda images: unit(critic(images, text[[0] * len(images)]).embedding.float(), dim=1) @ direction


def typicality(clip: Clip, plain: Tensor) -> Objective:
    """The cosine of a picture's features and the mean features of plain samples [n, 3, H, W] of the prompt."""
    with torch.no_grad():
        centre = torch.nn.functional.normalize(clip.features(plain).mean(0), dim=0)
    return lambda images: clip.features(images) @ centre


def build(
    parts: list[dict[str, float]], model: Model, prompt: str, clips: list[Clip], critic: Any, views: int,
    plain: Tensor, seed: int,
) -> Objectives:  # fmt: skip
    """The terms (language.TERMS) that `parts` name, for one prompt.

    plain [n, 3, H, W]: pictures of it, for `typical`. seed: of the views.
    """
    text = model.text_encoder([prompt])
    features, critic = cache_last(clip_features(clips, prompt, views, seed)), cache_last(critic)
    make: dict[str, Callable[[], Objective]] = {
        "clip": lambda: directional_similarity(features, [clip.text([prompt]).sentence[0] for clip in clips]),
        "contrast": lambda: directional_similarity(features, [contrast_direction(clip.text, prompt) for clip in clips]),
        "typical": lambda: typicality(clips[0], plain),
        "d": lambda: discriminator_logit(critic, text),
        "d_text": lambda: discriminator_similarity(critic, text, text.sentence[0]),
        "d_contrast": lambda: discriminator_similarity(critic, text, contrast_direction(model.text_encoder, prompt)),
    }
    names = dict.fromkeys(name for part in parts for name in part)
    return Objectives({name: make[name]() for name in names}, parts)
