"""Frozen networks by name."""

import types
from typing import Any


def load(name: str, settings: Any, device: Any, layout: Any) -> Any:
    from torch.nn import functional as F

    from t2i.encoders.clip import load_clip
    from t2i.encoders.vgg import load_vgg

    if name == "clip":
        clip = load_clip(settings.clip, device)
        clip.features = lambda image, rng=None: clip.image_features(image, rng, settings.cut_size) if rng else clip.image_features(image)
        return clip
    vgg = load_vgg(settings.vgg, settings.vgg_preprocessing, device, layout)
    def features(image, rng=None):
        s = settings.vgg_size
        if s and image.shape[-1] > s:
            image = F.interpolate(image, (s, s), mode="bilinear", antialias=True)
        return vgg(image)
    vgg.features = features
    return vgg
