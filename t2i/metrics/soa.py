"""Semantic Object Accuracy (Hinz et al. 2020, 1910.13321): does a detector see the objects that the caption names?

What detects is networks/detector.py's: the user's function or, for drawn scenes, the attribute probe.

By the authors' rules (their code, SOA/): 80 lists of captions, one a class; three pictures of each caption, but for
"person" one each of 30,000 drawn captions; a picture is right where YOLOv3, looking at 256 pixels, finds the list's
class with a confidence of 0.5 or more (non-maximum suppression 0.4), whatever else the caption names. SOA-I is the mean
over pictures, SOA-C over classes, Top40 and Bot40 over the 40 classes with the most and the fewest pictures. This is
had by captions that name their class (`{"caption": ..., "object": "dog"}` in .jsonl, each three times) and a detector
with that threshold. The lists themselves are pickles, which are not read here.

Other captions ask for every class that their words name (CLASSES, with BUT for what only sounds like one), a picture
each. The authors chose captions by words too, but by tables of their own: such scores are like theirs, and not to be
compared with published ones.
"""

import math
import re
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.captions import Caption
from t2i.metrics.intervals import Estimate
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.networks import Settings
from t2i.metrics.probe import says_no_object
from t2i.metrics.sources import Source

# COCO's classes → words that name one in a caption; plurals are understood. Phrases of BUT name something else.
CLASSES: dict[str, str] = {
    "person": "person people man men woman women boy girl child children kid lady guy baby player skier surfer "
    "snowboarder skateboarder",
    "bicycle": "bicycle bike", "car": "car", "motorcycle": "motorcycle motorbike",
    "airplane": "airplane aeroplane plane jet aircraft", "bus": "bus", "train": "train locomotive", "truck": "truck",
    "boat": "boat sailboat ship canoe kayak", "traffic light": "traffic_light stoplight",
    "fire hydrant": "fire_hydrant hydrant", "stop sign": "stop_sign", "parking meter": "parking_meter",
    "bench": "bench", "bird": "bird seagull pigeon duck parrot", "cat": "cat kitten", "dog": "dog puppy",
    "horse": "horse pony", "sheep": "sheep lamb", "cow": "cow bull cattle calf", "elephant": "elephant",
    "bear": "bear", "zebra": "zebra", "giraffe": "giraffe", "backpack": "backpack", "umbrella": "umbrella parasol",
    "handbag": "handbag purse", "tie": "necktie tie", "suitcase": "suitcase luggage", "frisbee": "frisbee",
    "skis": "skis ski", "snowboard": "snowboard", "sports ball": "baseball_ball soccer_ball tennis_ball ball",
    "kite": "kite", "baseball bat": "baseball_bat bat", "baseball glove": "baseball_glove mitt",
    "skateboard": "skateboard", "surfboard": "surfboard", "tennis racket": "racket racquet", "bottle": "bottle",
    "wine glass": "wine_glass wineglass", "cup": "cup mug", "fork": "fork", "knife": "knife knives", "spoon": "spoon",
    "bowl": "bowl", "banana": "banana", "apple": "apple", "sandwich": "sandwich", "orange": "orange",
    "broccoli": "broccoli", "carrot": "carrot", "hot dog": "hot_dog hotdog", "pizza": "pizza",
    "donut": "donut doughnut", "cake": "cake cupcake", "chair": "chair", "couch": "couch sofa",
    "potted plant": "potted_plant houseplant", "bed": "bed", "dining table": "dining_table table",
    "toilet": "toilet", "tv": "tv television", "laptop": "laptop", "mouse": "computer_mouse mouse",
    "remote": "remote remote_control", "keyboard": "keyboard", "cell phone": "cell_phone cellphone smartphone",
    "microwave": "microwave", "oven": "oven stove", "toaster": "toaster", "sink": "sink",
    "refrigerator": "refrigerator fridge", "book": "book", "clock": "clock", "vase": "vase", "scissors": "scissors",
    "teddy bear": "teddy_bear teddy", "hair drier": "hair_dryer hair_drier", "toothbrush": "toothbrush",
}  # fmt: skip
BUT: dict[str, str] = {
    "dog": r"hot dogs?", "bear": r"teddy bears?", "train": r"train (?:tracks?|stations?|bridges?|car)",
    "bus": r"bus (?:stops?|stations?)", "car": r"(?:train|street|cable|rail) cars?", "plane": r"plane (?:tickets?)",
    "orange": r"orange (?!and\b|slices?\b|juice\b|peels?\b|sits?\b|on\b|in\b)\w+", "toilet": r"toilet (?:paper|seats?)",
    "person": r"snow ?m[ae]n", "cake": r"cake (?:stands?|pans?)", "tie": r"to tie|tie (?:up|down)",
    "kite": r"kite ?board\w*", "chair": r"wheel ?chairs?", "tv": r"tv (?:stands?|shows?|remotes?)",
}  # fmt: skip
_IRREGULAR = {"people", "men", "women", "children", "sheep", "cattle", "skis", "scissors", "knives", "luggage"}


def _pattern(words: str) -> re.Pattern:
    forms = []
    for word in words.split():
        stem = re.escape(word.replace("_", " "))
        if word in _IRREGULAR:
            forms.append(stem)
        elif word.endswith(("s", "ch", "x", "sh")):
            forms.append(f"{stem}(?:es)?")
        elif word.endswith("y") and word[-2] not in "aeiou":
            forms.append(f"(?:{stem}|{stem[:-1]}ies)")
        else:
            forms.append(f"{stem}s?")
    return re.compile(rf"\b(?:{'|'.join(forms)})\b")


_PATTERNS = {name: _pattern(words) for name, words in CLASSES.items()}


def named(caption: str) -> set[str]:
    """The COCO classes that a caption names: 'A hot dog and two apples' → {"hot dog", "apple"}."""
    text = " ".join(caption.lower().split())
    return {c for c, p in _PATTERNS.items() if p.search(re.sub(BUT[c], " ", text) if c in BUT else text)}


def asked_by(caption: Caption) -> set[str]:
    """The class that a caption is listed for, or else those that its words name."""
    return {caption.object} if caption.object in CLASSES else named(caption.text)


def compute(asked: Sequence[Collection[str]], found: Sequence[Collection[str]]) -> dict[str, Tensor | Estimate]:
    """Classes asked of each picture and found in it → {"soa_i": one value an asking, "soa_c": the mean over classes},
    and "soa_c_top40" and "soa_c_bot40" where all 80 were asked for.

    An asking is a class asked of a picture, right (1) where it was found. SOA-I is the mean over all, SOA-C the mean
    of the classes' own means, so that rare classes count as much. UserError where nothing was asked.
    """
    if len(asked) != len(found):
        raise UserError(f"soa: {len(asked)} pictures but {len(found)} answers of the detector; one a picture")
    right: dict[str, list[float]] = {}
    for want, seen in zip(asked, found):
        for name in sorted(want):
            right.setdefault(name, []).append(float(name in seen))
    if not right:
        raise UserError("soa: no caption names a class that the detector knows; give captions that name objects")
    scores: dict[str, Tensor | Estimate] = {
        "soa_i": torch.tensor([r for values in right.values() for r in values], dtype=torch.float64),
        "soa_c": _mean(list(right.values())),
    }
    if set(right) == set(CLASSES):
        by_count = sorted((right[name] for name in CLASSES), key=len)
        scores |= {"soa_c_top40": _mean(by_count[40:]), "soa_c_bot40": _mean(by_count[:40])}
    return scores


def _mean(classes: Sequence[list[float]]) -> Estimate:
    return Estimate(sum(sum(v) / len(v) for v in classes) / len(classes), _deviation(classes))


def _deviation(classes: Collection[list[float]]) -> float:
    """Of the mean of the classes' means: each class was asked few times, and one that was right each time may not be
    always (the variance of its share under a uniform prior)."""
    variance = 0.0
    for right in classes:
        share = (sum(right) + 1) / (len(right) + 2)
        variance += share * (1 - share) / (len(right) + 3)
    return math.sqrt(variance) / len(classes)


def _measure(e: Evidence) -> dict[str, Tensor | Estimate]:
    detector = e.networks["detector"].itself
    found = [{name for name, there in zip(detector.classes, row) if there} for row in e.fake["seen"].tolist()]
    return compute([detector.asked(caption) for caption in e.captions], found)


def _lacks(source: Source, settings: Settings) -> str | None:
    if not source.captioned:
        return "needs captions: --captions FILE"
    return None if settings["detector"] else says_no_object(source, settings)


METRIC = Metric(
    _measure, networks=("detector",), features=("seen",), scores=("soa_i", "soa_c"), lacks=_lacks, order=150
)
