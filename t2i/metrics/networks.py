"""What looks at pictures: from pictures to features, apart from the mathematics of any metric.

Each network is found, or said to be missing and where it is usually had, before anything is computed, and is known by
a hash of its weights, so that two scores can tell whether they saw through the same eyes.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.encoders import vgg as vggs
from t2i.encoders.clip import Clip, load_clip, resample
from t2i.errors import UserError
from t2i.metrics import inception, lpips_diversity, probe, soa, swd, vgg_distance

SCENES_CLIP = "scenes-clip-score"  # never trained against


@dataclass
class Files:
    """Where the networks are. None: the usual place, or what scenes bring with them."""

    inception: str | None = None  # a published weight file
    clip: str | None = None  # a name as for encoders.clip
    vgg: str | None = None  # vgg16, vgg19 or a weight file
    preprocessing: str = "torchvision"  # that the VGG was trained with
    lpips_alex: str | None = None  # torchvision's weights
    lpips_vgg: str | None = None
    detector: str | None = None  # module:function


@dataclass
class Network:
    """see(images [N, 3, H, W] in [-1, 1], their numbers) → features {name: [N, ...]}."""

    see: Callable[[Tensor, Sequence[int]], dict[str, Tensor]]
    fingerprint: str  # of its weights
    of: Any = None  # what metrics ask of it besides


NAMES = ("inception", "clip", "vgg", "probe", "detector", "patches", "lpips_alex", "lpips_vgg")


def missing(name: str, files: Files, scenes: bool) -> str | None:
    """Why a network cannot be had, in one line; None where it can. Fetches and loads nothing."""
    if name == "inception":
        return None if inception.find(files.inception) else inception.missing(files.inception)
    if name == "clip":
        return None if files.clip or scenes else "no CLIP to judge with: name one that training has not seen, --clip"
    if name == "vgg":
        if files.vgg:
            return None
        home = _cache() / vggs.TORCHVISION["vgg19"]
        return None if home.is_file() else f"no VGG: {home.name} is not in {home.parent}; give a weight file with --vgg"
    if name == "probe":
        return None if scenes else "the attribute probe knows only scenes"
    if name == "detector":
        return None if files.detector or scenes else "no detector: give one with --detector module:function"
    if name.startswith("lpips"):
        if importlib.util.find_spec("lpips") is None:
            return "the lpips package is not installed"
        net = name.removeprefix("lpips_")
        file = getattr(files, name)
        home = lpips_diversity.home(net)
        found = Path(file or home).is_file()
        return None if found else f"no {home.name} at {file or home.parent}; give the file with --lpips-{net}"
    return None


def load(name: str, files: Files, device: torch.device | str, scenes: bool = False, seed: int = 0) -> Network:
    """A network by its name. UserError where its weights are missing or damaged."""
    if reason := missing(name, files, scenes):
        raise UserError(reason)
    if name == "inception":
        network = inception.load(files.inception, device)
        label = inception.SHA256[:16] if network.published else hashed(network)
        return Network(lambda x, _: dict(zip(("inception", "logits"), network(x))), label)
    if name == "clip":
        clip = load_clip(files.clip or SCENES_CLIP, device)
        name = f"{clip.name} {hashed(clip.text.network)}"
        return Network(lambda x, _: {"clip": raw_features(x, clip)}, name, clip)
    if name == "vgg":
        vgg = vggs.load_vgg(files.vgg or "vgg19", files.preprocessing, device)
        see = lambda x, _: {"vgg": vgg_distance.features(x, vgg)}
        return Network(see, hashed(vgg), vgg)
    if name == "probe":
        judge = probe.load().to(device)
        both = lambda x: [logits.argmax(1) for logits in judge(x)]
        return Network(lambda x, _: dict(zip(("object", "color"), both(x))), hashed(judge), judge)
    if name == "detector":
        return _detector(files, device)
    if name == "patches":
        return Network(lambda x, numbers: {"patches": swd.patches(x, list(numbers))}, f"seed {seed}")
    net = name.removeprefix("lpips_")
    distance = lpips_diversity.load(net, getattr(files, name), device)
    return Network(lambda x, _: {}, hashed(distance), distance)


def _detector(files: Files, device: torch.device | str) -> Network:
    """The user's detector; without one, on scenes, the probe."""
    if files.detector:
        names, detect = list(soa.CLASSES), soa.load(files.detector)
        label = files.detector
    else:
        judge = probe.load().to(device)
        names, label = judge.objects, f"probe {hashed(judge)}"
        detect = lambda images: [{name} for name in judge.name(images)[0]]

    def see(images: Tensor, _: Sequence[int]) -> dict[str, Tensor]:
        found = detect(images)
        if len(found) != len(images):
            raise UserError(f"--detector {label}: {len(found)} answers to {len(images)} pictures; one a picture")
        for unknown in sorted({n for one in found for n in one} - set(names)):
            raise UserError(f"--detector {label}: saw {unknown!r}, which is no class of COCO; use its class names")
        return {"seen": torch.tensor([[name in one for name in names] for one in found])}

    return Network(see, label, names)


@torch.no_grad()
def raw_features(images: Tensor, clip: Clip) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → [N, C] as the tower gives them: CLIP-FID is of these, not of unit vectors."""
    images = images.float()
    if images.shape[-2:] != (clip.size, clip.size):
        images = resample(images, clip.size)
    return clip.encode_image(((images + 1) / 2 - clip.mean) / clip.std).float()


@torch.no_grad()
def sentences(captions: Sequence[str], clip: Clip) -> Tensor:
    """[N, C] unit length."""
    parts = [captions[i : i + 256] for i in range(0, len(captions), 256)]
    return torch.cat([F.normalize(clip.text(part).sentence, dim=1) for part in parts])


def hashed(network: nn.Module) -> str:
    """Sixteen hex digits of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
