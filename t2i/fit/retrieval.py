"""How well a CLIP finds pictures and captions that it has not seen."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.data.samples import Sample
from t2i.encoders.clip import Clip
from t2i.metrics import clip_score
from t2i.worlds import scenes


def image_features(clip: Clip, samples: list[Sample], batch: int = 50) -> Tensor:
    """[N, C]"""
    found = []
    with torch.no_grad():
        for start in range(0, len(samples), batch):
            images = [s.image[None].to(clip.mean.device) / 127.5 - 1 for s in samples[start : start + batch]]
            alike = len({image.shape for image in images}) == 1
            found += [clip.features(image) for image in ([torch.cat(images)] if alike else images)]
    return torch.cat(found)


def text_features(clip: Clip, captions: list[str], batch: int = 100) -> Tensor:
    """[M, C]; captions of one length are read together."""
    order = sorted(range(len(captions)), key=lambda row: len(captions[row]))
    parts = [[captions[row] for row in order[start : start + batch]] for start in range(0, len(order), batch)]
    return torch.cat([clip.text(part).sentence for part in parts])[torch.tensor(order).argsort()]


def retrieval(clip: Clip, samples: list[Sample]) -> dict[str, Any]:
    """How often one of its captions is among the nearest 1, 5 and 10 of a picture, and its picture of a caption.

    The standard protocol: all captions of all pictures stand against each other. Another picture's caption in the same
    words is wrong, too, so that the highest share to be had depends on the data.
    """
    captions = [caption for s in samples for caption in s.captions]
    owner = torch.tensor([row for row, s in enumerate(samples) for _ in s.captions])
    rows = clip_score.retrieval(image_features(clip, samples), text_features(clip, captions), owner)
    found: dict[str, Any] = {"pictures": len(samples), "captions": len(captions)}
    for way in ("image_to_text", "text_to_image"):
        found[way] = {f"r@{k}": round(float(rows[f"{way}_r{k}"].mean()), 4) for k in (1, 5, 10)}
    return found


def zero_shot(clip: Clip, samples: list[Sample], prompts: int = 8) -> dict[str, Any]:
    """Scenes only: how often the (colour, object) whose captions are nearest, of all pairs, is what the picture shows.

    Apart for pairs that training shows and pairs that it leaves out; `prompts` captions a pair, averaged.
    """
    pairs = scenes.pairs("all")
    captions = [p for pair in pairs for p, _, _ in scenes.prompts([pair], prompts, seed=1)]
    means = clip.text(captions).sentence.unflatten(0, (len(pairs), prompts)).mean(1)  # [pairs, C]
    best = (image_features(clip, samples) @ F.normalize(means, dim=1).T).argmax(1).tolist()
    found: dict[str, Any] = {"pairs": len(pairs)}
    for group in ("seen", "held_out"):
        known = set(scenes.pairs(group))
        right = []  # (colour, object) right?
        for sample, i in zip(samples, best):
            shown = sample.meta["attributes"]["objects"][0]
            if (shown["color"], shown["name"]) in known:
                right.append((pairs[i][0] == shown["color"], pairs[i][1] == shown["name"]))
        if right:
            share = torch.tensor(right).float()  # [N, 2]
            shares = {"color": share[:, 0], "object": share[:, 1], "both": share.prod(1)}
            found[group] = {"pictures": len(right)} | {k: round(float(v.mean()), 4) for k, v in shares.items()}
    return found
