"""How well a CLIP finds pictures and captions that it has not seen."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.data.samples import Sample
from t2i.encoders.clip import Clip
from t2i.worlds import scenes


def image_features(clip: Clip, samples: list[Sample]) -> Tensor:
    """[N, C]"""
    device = clip.mean.device
    with torch.no_grad():
        return torch.cat([clip.features(s.image[None].to(device) / 127.5 - 1) for s in samples])


def retrieval(clip: Clip, samples: list[Sample]) -> dict[str, Any]:
    """How often the own caption is among the nearest 1 and 5 of a picture, and the own picture of a caption.

    One caption a picture. A caption that several pictures have is right for each of them; but "A red train." still
    counts as wrong for the picture of a red train whose caption says "A train on the tracks.", so that the highest
    share to be had depends on the data.
    """
    captions = [s.captions[0] for s in samples]
    cosine = image_features(clip, samples) @ clip.text(captions).sentence.T  # [N pictures, N captions]
    equal = torch.tensor([[a == b for a in captions] for b in captions], device=cosine.device)
    own = cosine.diagonal()[:, None]
    found: dict[str, Any] = {"pictures": len(samples)}
    for name, scores in (("image_to_text", cosine), ("text_to_image", cosine.T)):
        better = ((scores > own) & ~equal).sum(1)
        found[name] = {f"r@{k}": round(float((better < k).float().mean()), 4) for k in (1, 5)}
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
