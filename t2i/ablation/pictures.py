"""The same prompts and latents of every row side by side, with the real pictures of the nearest captions."""

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from t2i.ablation.results import Outcome
from t2i.ablation.trials import Ablation
from t2i.data.samples import Samples
from t2i.data.tars import BadSample
from t2i.errors import UserError

SEARCHED = 20_000  # samples whose captions are compared with the prompts
LARGEST = 128  # side of a picture on the page


def real_pictures(a: Ablation) -> list[tuple[str, Path]]:
    """For each prompt the reference's picture with the nearest caption: (caption, PNG). Kept in the ablation's folder.

    An ablation without prompts gets captions of the reference, spread over it. Near: the words in common over all
    words of both, a word weighing -log of the share of captions that have it.
    """
    if not a.pictures:
        return []
    file = a.folder / "real" / "captions.json"
    wanted = {"reference": a.reference, "asked": a.prompts}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if {k: known.get(k) for k in wanted} != wanted:
        samples = Samples(a.reference)
        prompts, found = _nearest(samples, a.prompts)
        file.parent.mkdir(parents=True, exist_ok=True)
        for i, (_, index) in enumerate(found):
            Image.fromarray(samples.read(index).image.permute(1, 2, 0).numpy()).save(file.with_name(f"{i:02d}.png"))
        known = wanted | {"prompts": prompts, "captions": [caption for caption, _ in found]}
        file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    a.prompts = known["prompts"]
    return [(caption, file.with_name(f"{i:02d}.png")) for i, caption in enumerate(known["captions"])]


def _nearest(samples: Samples, prompts: list[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """The prompts, or else 8 captions, and for each (nearest caption, its sample's number)."""
    captions: list[tuple[str, int]] = []
    numbers = range(0, len(samples), -(-len(samples) // SEARCHED))
    for i in numbers if prompts else range(0, len(samples), -(-len(samples) // 8)):
        try:
            captions += [(text, i) for text in samples.look_up(i).captions]
        except BadSample:
            continue
    if not captions:
        raise UserError(f"reference {samples.source}: no sample can be read; make the shards again")
    if not prompts:
        firsts = list({i: (text, i) for text, i in reversed(captions)}.values())[::-1]
        return [text for text, _ in firsts], firsts
    words = [frozenset(_words(text)) for text, _ in captions]
    count = Counter(w for some in words for w in some)

    def weight(some: frozenset[str]) -> float:
        return sum(math.log((1 + len(words)) / (1 + count[w])) for w in some)

    found = []
    for prompt in prompts:
        mine = frozenset(_words(prompt))
        best = max(range(len(words)), key=lambda k: weight(words[k] & mine) / (weight(words[k] | mine) or 1.0))
        found.append(captions[best])
    return prompts, found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def side_by_side(a: Ablation, outcomes: Sequence[Outcome], real: Sequence[tuple[str, Path]]) -> dict[str, Any] | None:
    """Prompts down; across, real pictures and the rows that have any: all of one seed and from the same latents."""
    seeds = list(dict.fromkeys(o.trial.seed for o in outcomes))
    per_seed = {s: {o.trial.row.name: o for o in outcomes if o.trial.seed == s and o.pictures} for s in seeds}
    seed = max(seeds, key=lambda s: len(per_seed[s]))
    if not real or not per_seed[seed]:
        return None
    shown = [i for i, row in enumerate(a.rows) if row.name in per_seed[seed]]
    here = [per_seed[seed][a.rows[i].name] for i in shown]
    rows = []
    for i, (prompt, (caption, path)) in enumerate(zip(a.prompts, real)):
        drawn = [strip(o.pictures[i], upright=len(here) > 6) for o in here]
        other = "" if caption.strip().lower().rstrip(".") == prompt.strip().lower().rstrip(".") else caption
        rows.append({"prompt": prompt, "caption": other, "real": strip([path]), "drawn": drawn})
    return {"seed": seed, "rows": rows, "shown": shown}


def strip(paths: Sequence[Path], upright: bool = False) -> dict[str, Any] | None:
    """Pictures beside or below each other as one data URI, with its size on the page."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    if not pictures:
        return None
    large = pictures[0].width > LARGEST
    if large:
        pictures = [p.resize((LARGEST, LARGEST), Image.Resampling.LANCZOS) for p in pictures]
    side = pictures[0].width
    step = side + max(side // 32, 1)
    long = len(pictures) * step - (step - side)
    sheet = Image.new("RGB", (side, long) if upright else (long, side), "#808080")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (0, i * step) if upright else (i * step, 0))
    data, kind = io.BytesIO(), "jpeg" if large else "png"
    sheet.save(data, kind, **({"quality": 90} if large else {"optimize": True}))
    scale = max(80 // side, 1)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"uri": uri, "width": sheet.width * scale, "height": sheet.height * scale}
