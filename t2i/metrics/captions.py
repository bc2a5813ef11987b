"""Captions of pictures to be judged, and the files that hold them."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2i.errors import UserError

TEXT = ("caption", "text", "prompt")  # what files call a caption
NAME = ("file_name", "filename", "file", "image", "name", "path")  # and the picture it is of
KINDS = (
    "a text file with one a line, .jsonl, .csv, JSON {picture: caption}, COCO's results, or a list saved by score.py"
)


@dataclass(frozen=True)
class Caption:
    """What a picture is to show."""

    text: str
    image_id: int | None = None  # of the reference picture it describes
    object: str | None = None  # what the attribute probe should find, of scenes; of others the class that SOA asks for
    color: str | None = None
    id: int | None = None  # of COCO's annotation


COCO30K = 30000  # pictures of the preset of that name

Named = list[tuple[str | None, Caption]]  # the picture's name, where the file has one


def digest(captions: Sequence[Caption]) -> str:
    """Of the words and their order."""
    return hashlib.sha256("\n".join(c.text for c in captions).encode()).hexdigest()[:16]


def listed(captions: Sequence[Caption], reference: str | None, seed: int) -> dict[str, Any]:
    """The list as JSON, for others to make pictures of: `read_captions` reads it."""
    entries = [{k: v for k, v in asdict(c).items() if v is not None} for c in captions]
    ids = {"annotation_ids_sha256": found} if (found := ids_digest(captions)) else {}
    return {"sha256": digest(captions), **ids, "reference": reference, "seed": seed, "captions": entries}


def coco30k(annotations: str | Path, count: int = COCO30K) -> list[Caption]:
    """One caption each of `count` pictures of COCO's annotations (captions_val2014.json), by a rule that anybody can
    follow: the captioned pictures in the order of the SHA-256 of "coco30k IMAGE_ID", in hexadecimal; of the first
    30,000 of them, or of all where there are fewer, the caption of the lowest annotation id; in that order."""
    from t2i.data import coco  # here: pycocotools is slow to import

    read = coco.read(annotations, "--captions")
    key = lambda picture: hashlib.sha256(f"coco30k {picture.id}".encode()).hexdigest()
    out = []
    for picture in sorted(read.pictures, key=key)[:count]:
        number, text = min(zip(picture.caption_ids, picture.captions))
        out.append(Caption(text, picture.id, id=number))
    return out


def ids_digest(captions: Sequence[Caption]) -> str | None:
    """SHA-256 of the annotation ids in their order, a line each without a last newline; None where they have none."""
    if any(c.id is None for c in captions):
        return None
    return hashlib.sha256("\n".join(str(c.id) for c in captions).encode()).hexdigest()


def natural(name: str) -> list[str | int]:
    """What to sort by, so that 2.png comes before 10.png."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def read_captions(path: str | Path, names: Sequence[str] = ()) -> list[Caption]:
    """Captions in order, of all kinds of file in KINDS; only \\n and \\r\\n end a line.

    names: of the pictures, as paths in their folder, in natural order. Where the file names pictures (also by COCO's
    image id, the last number of a name), each gets its own; otherwise they are in order. UserError, in one line, where
    that cannot be told, or they are not equally many.
    """
    said = f"--captions {path}"
    try:
        entries = _parse(Path(path), said)
    except OSError as error:
        raise UserError(f"{said}: {error.strerror}; give {KINDS}") from None
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{said}: cannot be read ({reason}); give {KINDS}") from None
    if not entries:
        raise UserError(f"{said}: no captions there; give {KINDS}")
    return _ordered(entries, names, said) if names else [caption for _, caption in entries]


def _parse(path: Path, said: str) -> Named:
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line.strip(" \t") for line in text.replace("\r\n", "\n").split("\n")]
    lines = [line for line in lines if line]
    kind = path.suffix.lower()
    if kind == ".json":
        return _of_json(json.loads(text), said)
    if kind == ".jsonl":
        return [_entry(json.loads(line), said) for line in lines]
    if kind in (".csv", ".tsv"):
        return _of_table(
            list(csv.reader(io.StringIO(text, newline=""), delimiter="," if kind == ".csv" else "\t")), said
        )
    if lines and all(line[0] in "{[" and line[-1] in "}]" for line in lines):
        raise UserError(f"{said}: its lines are JSON; name it .jsonl, or .json where it is one value")
    parts = [line.split("\t") for line in lines]
    if lines and all(len(p) == 2 and _is_picture(p[0]) for p in parts):
        return [(name, Caption(caption)) for name, caption in parts]
    return [(None, Caption(line)) for line in lines]


def _of_json(read: Any, said: str) -> Named:
    if isinstance(read, dict) and "annotations" in read:
        several = "COCO's annotations have several captions a picture"
        raise UserError(f"{said}: {several}; --preset coco30k takes one of each, or give {KINDS}")
    if isinstance(read, dict) and isinstance(read.get("captions"), list):
        return [(None, Caption(**c) if isinstance(c, dict) else Caption(str(c))) for c in read["captions"]]
    if isinstance(read, dict):
        return [(name, Caption(str(read[name]))) for name in sorted(read, key=natural)]
    return [_entry(one, said) for one in read]


def _entry(one: Any, said: str) -> tuple[str | None, Caption]:
    """A caption, or an object with one and perhaps its picture's name or image_id."""
    if isinstance(one, str):
        return None, Caption(one)
    if not isinstance(one, dict) or not (key := next((k for k in TEXT if isinstance(one.get(k), str)), None)):
        raise UserError(f"{said}: {str(one)[:60]!r} is no caption; an entry is a text, or has one of {', '.join(TEXT)}")
    image_id = one.get("image_id")
    name = next((str(one[k]) for k in NAME if k in one), None)
    listed_for = one.get("object")  # the class of SOA
    return name, Caption(one[key], None if image_id is None else int(image_id), str(listed_for) if listed_for else None)


def _of_table(rows: list[list[str]], said: str) -> Named:
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    if any(cell in TEXT for cell in header):
        rows = rows[1:]
    else:  # without a header: captions alone, or a picture's name and its caption
        header = {1: ["caption"], 2: ["file_name", "caption"]}.get(len(header), [])
        if not header or (len(header) == 2 and not all(_is_picture(row[0]) for row in rows)):
            raise UserError(f"{said}: which column holds captions? add a header line, for example file_name,caption")
    if odd := next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), None):
        raise UserError(f"{said}: row {odd} has {len(rows[odd - 1])} columns, not {len(header)}; quote what has commas")
    return [_entry(dict(zip(header, (cell.strip() for cell in row))), said) for row in rows]


def _is_picture(name: str) -> bool:
    return re.search(r"\.(png|jpe?g|webp)$", name.strip(), re.IGNORECASE) is not None


def _ordered(entries: Named, names: Sequence[str], said: str) -> list[Caption]:
    """One caption for each picture."""
    given = [name for name, _ in entries]
    known: dict[str, Caption] = {}
    if all(given):
        wanted = list(names)
        if not set(wanted) <= set(given):  # the file has names without their folders
            wanted = [name.rsplit("/", 1)[-1] for name in names]
        known = {str(name): caption for name, caption in entries}
    elif all(caption.image_id is not None and caption.object is None for _, caption in entries) and not any(given):
        wanted = [str(_number(name)) for name in names]
        by_id = {str(caption.image_id): caption for _, caption in entries}
        known = by_id if set(wanted) <= set(by_id) else {}
    if known:
        if len(known) != len(entries) or len(set(wanted)) != len(wanted):
            raise UserError(f"{said}: some pictures have several captions, or one name; one caption a picture")
        if lacking := [n for n in wanted if n not in known]:
            more = f" and {len(lacking) - 1} more pictures" if len(lacking) > 1 else ""
            raise UserError(f"{said}: none of {lacking[0]}{more}")
        return [known[n] for n in wanted]
    if len(entries) != len(names):
        raise UserError(f"{said}: {len(entries)} captions for {len(names)} pictures; one a picture, in their order")
    keys = [natural(name) for name in names]
    if tie := next((i for i in range(1, len(keys)) if keys[i] == keys[i - 1]), None):
        raise UserError(f"{said}: {names[tie - 1]} and {names[tie]} have no order; name the pictures in the file")
    return [caption for _, caption in entries]


def _number(name: str) -> int | None:
    """COCO_val2014_000000391895.jpg → 391895."""
    found = re.findall(r"[0-9]+", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return int(found[-1]) if found else None
