"""COCO caption annotations → one record a picture, with everything that does not fit together set aside."""

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from t2i import files
from t2i.errors import UserError


@dataclass(frozen=True)
class Picture:
    """One captioned picture of the annotation file."""

    id: int
    file: str  # below the picture folder
    captions: tuple[str, ...]
    license: int | None = None
    attributes: dict[str, Any] | None = None  # ground truth of drawn scenes
    caption_ids: tuple[int, ...] = ()  # of the annotations, one a caption


@dataclass(frozen=True)
class Problem:
    """A picture that cannot become a sample."""

    kind: str  # missing, empty, truncated, undecodable, unreadable or no_captions
    image_id: int
    file: str
    reason: str


@dataclass
class Annotations:
    """A caption file, read and checked."""

    sha256: str  # of the file
    pictures: list[Picture]  # sorted by id, each with at least one caption
    problems: list[Problem] = field(default_factory=list)  # pictures without captions
    orphans: list[dict[str, Any]] = field(default_factory=list)  # annotations of pictures that the file does not have
    repeated: dict[str, int] = field(default_factory=dict)  # entries left out because their id came before


def read(path: str | Path, option: str = "--annotations") -> Annotations:
    """Reads a captions_*.json through pycocotools. UserError where it is not one; option: how the user gave it."""
    path = Path(path)
    try:
        sha256 = files.sha256(path)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
            coco = COCO(str(path))
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; give COCO's captions_*.json") from None
    except KeyError as error:
        raise UserError(f"{option} {path}: an entry has no {error}; give COCO's captions_*.json") from None
    except (ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "not a COCO file"
        raise UserError(f"{option} {path}: cannot be read as COCO JSON ({reason}); fetch the file again") from None
    if not coco.imgs:
        raise UserError(f"{option} {path}: it has no images; give COCO's captions_*.json")
    if any("caption" not in a for a in coco.anns.values()):
        raise UserError(f"{option} {path}: its annotations are not captions; give captions_*.json of the same set")

    pictures, problems = [], []
    for image_id, image in coco.imgs.items():
        if not isinstance(image_id, int) or image_id < 0 or "file_name" not in image:
            raise UserError(
                f"{option} {path}: image {image_id!r} needs a whole number as id and a file_name; "
                "write the file in COCO's layout"
            )
        texts = {a["id"]: a["caption"] for a in coco.imgToAnns.get(image_id, [])}  # a repeated id counts once
        said = {number: c for number, text in texts.items() if (c := " ".join(str(text).split()))}
        captions = tuple(said.values())
        if captions:
            file, attributes = image["file_name"], image.get("attributes")
            pictures.append(Picture(image_id, file, captions, image.get("license"), attributes, tuple(said)))
        else:
            problems.append(Problem("no_captions", image_id, image["file_name"], "the annotation file has none"))
    return Annotations(
        sha256,
        sorted(pictures, key=lambda p: p.id),
        sorted(problems, key=lambda p: p.image_id),
        [{"id": a["id"], "image_id": a["image_id"]} for a in coco.anns.values() if a["image_id"] not in coco.imgs],
        {
            "images": len(coco.dataset["images"]) - len(coco.imgs),
            "annotations": len(coco.dataset.get("annotations", [])) - len(coco.anns),
        },
    )
