"""What sees objects: the user's detector, any function from pictures [N, 3, H, W] in [-1, 1] to, for each, the names of
the COCO classes seen in it. Without one, on drawn scenes, the attribute probe."""

import importlib
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i import files
from t2i.errors import UserError
from t2i.metrics.networks import Network, Setting, Settings
from t2i.options import flag

SETTINGS = {
    "detector": Setting("MODULE:FUNCTION", "for soa: pictures [N, 3, H, W] in [-1, 1] → COCO classes seen"),
}


@dataclass(frozen=True)
class Detector:
    classes: list[str]
    asked: Callable[[Any], set[str]]  # a caption (t2i.metrics.captions.Caption) → the classes it asks for


def missing(settings: Settings) -> str | None:
    if settings["detector"] or settings.scenes:
        return None
    return f"no detector: give one with {settings.spell('detector')} module:function"


def load(settings: Settings, device: Any) -> Network:
    """ "seen" [N, classes] bool."""
    import torch

    from t2i.metrics import soa
    from t2i.metrics.protocol import hashed
    from t2i.probes import scenes

    if where := settings["detector"]:
        label, detect = where, imported(where, settings.spell)
        fingerprint = code(detect)
        known = Detector(list(soa.CLASSES), soa.asked_by)
    else:
        judge = scenes.load().to(device)
        label, fingerprint = "probe", f"probe {hashed(judge)}"
        detect = lambda images: [{thing.object for thing in seen} for seen in judge.look(images)]
        known = Detector(judge.objects, lambda caption: {caption.object} & set(judge.objects))
    said = f"{settings.spell('detector')} {label}"

    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        found = detect(images)
        if len(found) != len(images):
            raise UserError(f"{said}: {len(found)} answers to {len(images)} pictures; one a picture")
        for unknown in sorted({n for one in found for n in one} - set(known.classes)):
            raise UserError(f"{said}: saw {unknown!r}, which is no class of COCO; use its class names")
        return {"seen": torch.tensor([[name in one for name in known.classes] for one in found])}

    return Network(see, fingerprint, known, title=label)


def code(detect: Callable[..., Any]) -> str:
    """Digests of the module that a detector stands in and of the networks that it keeps: all that can be known of one
    that loads its weights when it is first called is its code."""
    import torch

    from t2i.metrics.protocol import hashed

    module = sys.modules.get(getattr(detect, "__module__", None) or type(detect).__module__)
    held = [detect, *vars(module).values()] if module else [detect]
    found = {id(n): hashed(n) for n in held if isinstance(n, torch.nn.Module)}
    file = getattr(module, "__file__", None)
    source = files.sha256(Path(file))[:16] if file else "unknown"
    return " ".join([source, *sorted(found.values())])


def imported(where: str, spell: Callable[[str], str] = flag) -> Callable[[Any], Sequence[Collection[str]]]:
    """'module:function' → the function. The current folder is looked in too."""
    said = f"{spell('detector')} {where}"
    module, _, name = where.partition(":")
    if not module or not name:
        raise UserError(f"{said}: write module:function, for example my_detector:detect")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{said}: {error}; the module must be importable from here") from None
    if not callable(found):
        raise UserError(f"{said}: is not a function of pictures [N, 3, H, W] in [-1, 1]")
    return found
