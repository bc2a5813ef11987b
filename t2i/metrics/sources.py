"""Where pictures come from: a reference of real ones, a model's, or a folder of any other system's."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from t2i import files
from t2i.data.manifest import read_manifest
from t2i.data.prepare import to_rgb
from t2i.data.samples import Samples
from t2i.data.tars import BadSample
from t2i.errors import UserError, one_line
from t2i.metrics.captions import Caption, natural, read_captions
from t2i.model import WEIGHTS, Model
from t2i.options import flag
from t2i.pictures import to_uint8
from t2i.probes import scenes
from t2i.rng import derive_seed
from t2i.worlds.scenes import SCENES

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Reference:
    """Shards of real pictures, in one seeded order: picture i and caption i belong together."""

    captioned = True

    def __init__(
        self,
        shards: str,
        seed: int = 0,
        cache: str | Path = "shards/.cache",
        setting: str = "reference",
        spell: Callable[[str], str] = flag,
        here: bool = False,
    ):
        """UserError where there are no shards or they hold nothing that can be read; it names the setting that the
        shards were given by, as the user spells it. here: only those of this machine, as Samples has it."""
        self.said = f"{spell(setting)} {shards}"
        try:
            self.samples = Samples(shards, cache, here)
            first = self.samples.read(0)
        except BadSample as bad:
            raise UserError(f"{self.said}: {bad}; make the shards again") from None
        self.shards, self.seed, self.count = shards, seed, len(self.samples)
        self.resolution = int(first.image.shape[-1])
        self.scenes = (first.meta.get("attributes") or {}).get("scene") in SCENES
        self._digest: str | None = None
        self.order = np.random.default_rng(derive_seed(seed, 0x0D)).permutation(self.count)

    def pick(self, numbers: Sequence[int]) -> Tensor:
        """[N, 3, H, W] in [-1, 1]. UserError for a sample that is broken: a reference is whole or none."""
        try:
            images = [self._look_up(n).image for n in numbers]
        except BadSample as bad:  # its picture cannot be decoded
            raise self._broken(bad) from None
        for n, image in zip(numbers, images):
            if image.shape != (3, self.resolution, self.resolution):
                raise UserError(f"{self.said}: picture {n} is {tuple(image.shape[1:])}; make them again")
        return torch.stack(images).float().div_(127.5).sub_(1)

    def _look_up(self, number: int) -> Any:
        try:
            return self.samples.look_up(int(self.order[number]))
        except BadSample as bad:
            raise self._broken(bad) from None

    def _broken(self, bad: BadSample) -> UserError:
        return UserError(f"{self.said}: broken sample: {bad}; make the shards again")

    def all_captions(self, number: int) -> list[str]:
        """Everything that people wrote of a picture."""
        return self._look_up(number).captions

    def captions(self, count: int) -> list[Caption]:
        """One caption each of the first `count` pictures, drawn by the seed; a longer list begins like a shorter."""
        chosen = np.random.default_rng(derive_seed(self.seed, 0xCA)).random(self.count)
        out = []
        for n in range(count):
            sample = self._look_up(n)
            text = sample.captions[int(chosen[n] * len(sample.captions))]
            asked = scenes.asked(text, sample.meta["attributes"]) if self.scenes else (None, None)
            out.append(Caption(text, sample.image_id, *asked))
        return out

    def digest(self) -> str:
        """Of all pictures' files and captions in their order, however the shards are cut: a look at every byte."""
        if self._digest is None:
            whole = hashlib.sha256()
            for number in range(self.count):
                try:
                    sample = self.samples.look_up(number)
                except BadSample as bad:
                    raise self._broken(bad) from None
                whole.update(hashlib.sha256(sample.coded.numpy().tobytes()).digest())
                whole.update(json.dumps(sample.captions).encode())
            self._digest = whole.hexdigest()[:16]
        return self._digest

    def describe(self, count: int) -> dict[str, Any]:
        """What the fingerprint says of it."""
        records = [read_manifest(Path(p).parent) or {} for p in sorted({s.url for s in self.samples.shards})]
        manifest = next((r for r in records if r), {})
        options = manifest.get("options", {})
        known = f"{options['fit']}, Pillow Lanczos, JPEG {options['quality']}" if options else "unknown"
        source = manifest.get("source", {})
        split = ", ".join(f"{k} {str(v)[:16]}" for k, v in source.items() if isinstance(v, str | int)) or "unknown"
        return {
            "resize": known,
            "reference": self.digest(),
            "reference_split": split,
            "reference_count": count,
        }


@dataclass
class Generated:
    """A model's pictures: number n is of caption n mod len(captions) with seed + n."""

    model: Model
    captions: list[Caption]
    seed: int = 0
    truncation: float = 1.0
    noise: str = "const"
    captioned = True
    encoding = "lossless"
    resize: int | None = None

    @property
    def resolution(self) -> int:
        return self.model.resolution

    def pick(self, numbers: Sequence[int]) -> Tensor:
        texts = [self.captions[n % len(self.captions)].text for n in numbers]
        seeds = [self.seed + n for n in numbers]
        made = self.model(texts, seeds=seeds, truncation=self.truncation, noise=self.noise, batch=len(texts))
        return quantised(made)

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Numbers of two pictures of one caption."""
        n = len(self.captions)
        return [(i, n + i) for i in range(min(count, n))]

    def describe(self) -> dict[str, Any]:
        file = self.model.path / WEIGHTS
        whole = files.sha256(file) if file.is_file() else None
        return {"model": str(self.model.path), "kimg": self.model.kimg, "ema": True, "weights_sha256": whole}


class Folder:
    """Pictures of any system, of a folder and those in it, in natural order of their names; perhaps with captions."""

    def __init__(
        self,
        folder: str | Path,
        captions: str | Path | None = None,
        resize: int | None = None,
        said: str = "--pictures",
    ):
        """captions: a file as `read_captions` takes. None: the "prompt" of a JSON beside each picture, as
        generate.py --singles writes; where there are no such files either, captions are empty and `captioned` False.
        resize: the side that all are brought to, as prepared shards are: the middle square, by Lanczos' filter.
        said: how the user gave the folder."""
        self.folder, self.resize, self.said = Path(folder), resize, said
        if not self.folder.is_dir():
            raise UserError(f"{self.said} {folder}: no such folder")
        inside = [p.relative_to(self.folder) for p in self.folder.rglob("*") if p.suffix.lower() in PICTURES]
        # Not ._0.png, which other systems leave beside 0.png.
        seen = [p.as_posix() for p in inside if not any(part.startswith(".") for part in p.parts)]
        self.names = sorted(seen, key=lambda name: (natural(name), name))
        self.files = [self.folder / name for name in self.names]
        if not self.files:
            raise UserError(f"{self.said} {folder}: no pictures there ({', '.join(PICTURES)})")
        if captions is None:
            texts = [_beside(p) for p in self.files]
            if any(texts) and not all(texts):
                without = self.names[[bool(t) for t in texts].index(False)]
                raise UserError(f"{self.said} {folder}: no caption of {without}; give them with --captions FILE")
            self.captions = [Caption(t or "") for t in texts]
        else:
            self.captions = read_captions(captions, self.names)
        self.captioned = any(c.text for c in self.captions)
        self.resolution = int(self.pick([0]).shape[-1])

    @property
    def encoding(self) -> str:
        """How the pictures were kept."""
        kinds = {".png": "lossless", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}
        return ", ".join(sorted({kinds[p.suffix.lower()] for p in self.files}))

    def pick(self, numbers: Sequence[int]) -> Tensor:
        images = [_open(self.files[n], self.resize, self.said) for n in numbers]
        for n, image in zip(numbers, images):
            if image.shape != images[0].shape or image.shape[0] != image.shape[1]:
                said = f"{self.said} {self.files[n]}: {_sides(image)}"
                raise UserError(f"{said}; all must be squares of one size: --resize N makes them so")
            if hasattr(self, "resolution") and image.shape[0] != self.resolution:
                raise UserError(
                    f"{self.said} {self.files[n]}: {_sides(image)}, others have {self.resolution}; --resize N "
                    "makes all squares of one size"
                )
        return torch.stack(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Neighbours among the pictures of one caption; each picture is in one pair at most."""
        if not self.captioned:
            return []
        groups: dict[str, list[int]] = {}
        for n, caption in enumerate(self.captions):
            groups.setdefault(caption.text, []).append(n)
        both = [pair for g in groups.values() for pair in zip(g[::2], g[1::2])]
        return sorted(both)[:count]

    def describe(self) -> dict[str, Any]:
        return {"pictures": str(self.folder), "kimg": None, "ema": None, "weights_sha256": None}


def _sides(image: Tensor) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def _open(path: Path, resize: int | None, said: str) -> Tensor:
    """[H, W, 3] uint8, upright as its EXIF says."""
    try:
        with Image.open(path) as image:
            rgb = to_rgb(ImageOps.exif_transpose(image))
            if resize:
                rgb = ImageOps.fit(rgb, (resize, resize), Image.Resampling.LANCZOS)
            return torch.from_numpy(np.array(rgb))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UserError(f"{said} {path}: cannot be read ({one_line(error)})") from None


def _beside(path: Path) -> str | None:
    try:
        return json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("prompt")
    except (OSError, ValueError, AttributeError):
        return None


def quantised(images: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] in [-1, 1] as a file would hold them: a model is judged by what its users get."""
    return to_uint8(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def overlap(train: str, reference: Reference) -> int | None:
    """How many reference pictures are among the training shards too: same image id, same captions. COCO's "restval"
    pictures are such. None where the training shards are not here; a model folder names them, so that nothing is
    fetched or run for it."""
    try:
        samples = Samples(train, here=True)
        seen: dict[int, frozenset[str]] = {}
        for n in range(len(samples)):
            try:
                sample = samples.look_up(n)
            except BadSample:
                continue
            seen[sample.image_id] = frozenset(sample.captions)
    except UserError:
        return None
    found = 0
    for n in range(reference.count):
        try:
            sample = reference.samples.look_up(n)
        except BadSample:
            continue
        found += seen.get(sample.image_id) == frozenset(sample.captions)
    if found:
        warnings.warn(
            f"leakage: {found} of the {reference.count} reference pictures are in the training shards {train}; "
            "scores against them flatter the model",
            stacklevel=2,
        )
    return found


class Source(Protocol):
    """What pictures to be judged are to a metric: Generated, Folder, or a class of your own."""

    captions: list[Caption]  # a picture each
    resize: int | None  # what they were brought to, where they had another size

    @property
    def captioned(self) -> bool: ...

    @property
    def resolution(self) -> int: ...

    @property
    def encoding(self) -> str:
        """How they were kept: lossless, JPEG …"""

    def pick(self, numbers: Sequence[int]) -> Tensor:
        """[N, 3, H, W] in [-1, 1]."""

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """At most `count` pairs of numbers of one caption."""

    def describe(self) -> dict[str, Any]:
        """What was judged, for the JSON."""
