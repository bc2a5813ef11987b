"""A CLIP that training has not seen: its features of pictures and of their captions."""

from collections.abc import Sequence
from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

SCENES = "scenes-clip-score"  # never trained against

# What the field scores with, by the names that papers give.
PRESETS = {
    "ViT-B/32": "open_clip:ViT-B-32/openai",
    "ViT-L/14": "open_clip:ViT-L-14/openai",
    "ViT-bigG/14": "open_clip:ViT-bigG-14/laion2b_s39b_b160k",
}

SETTINGS = {
    "clip": Setting(
        "NAME", f"that judges: {', '.join(PRESETS)}, or as encoders.clip in a configuration; never one trained against"
    )
}


def missing(settings: Settings) -> str | None:
    if settings["clip"] or settings.scenes:
        return None
    return f"no CLIP to judge with: name one that training has not seen, {settings.spell('clip')}"


def load(settings: Settings, device: Any) -> Network:
    """ "clip" [N, C]: pictures as the tower gives them, since CLIP-FID is of these and not of unit vectors; "clip_text"
    [N, C]: captions, of unit length."""
    import torch
    import torch.nn.functional as F

    from t2i.encoders.clip import load_clip, standardised
    from t2i.metrics.protocol import hashed

    name = settings["clip"] or SCENES
    clip = load_clip(PRESETS.get(name, name), device)
    weights = hashed(clip.text.network)

    @torch.no_grad()
    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        return {"clip": clip.encode_image(standardised(images.float(), clip.size, clip.mean, clip.std)).float()}

    @torch.no_grad()
    def read(captions: Sequence[str]) -> dict[str, Any]:
        parts = [captions[i : i + 256] for i in range(0, len(captions), 256)]
        return {"clip_text": torch.cat([F.normalize(clip.text(part).sentence, dim=1) for part in parts])}

    def used_in_training(model: Any) -> bool:
        """By name, or by the weights of its text tower under another name."""
        encoders = model.config.encoders
        return clip.name in (encoders.text, encoders.clip) or hashed(model.text_encoder.network) == weights

    return Network(see, f"{weights} {clip.size} pixels", clip, read, title=clip.name, used_in_training=used_in_training)
