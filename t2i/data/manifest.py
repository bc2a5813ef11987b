"""What a folder of shards holds: manifest.json, and .progress while it is being made.

A shard's record says how many samples it has, its digest, and what it was made from. Until every shard is there the
records stand in .progress, one a file, so that a run that was killed can continue; then they become the manifest.
"""

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2i.errors import UserError
from t2i.files import read_json, write_json

FORMAT = 1

Record = dict[str, Any]  # file, samples, captions, bytes, sha256, problems, inputs, and clip where there are features


@dataclass(frozen=True)
class Options:
    """What the bytes of the shards depend on, besides the input."""

    size: int = 256  # side of the square pictures
    fit: str = "crop"  # crop the centre, or squash the whole picture
    per_shard: int = 1000  # pictures a shard, before the bad ones are left out
    quality: int = 95  # of the JPEGs
    limit: int = 0  # use only the first so many pictures; 0 = all
    clip: str = ""  # fingerprint of the CLIP whose features are stored; "" = none

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 4096:
            raise UserError(f"--size {self.size}: must be from 4 to 4096")
        if self.fit not in ("crop", "squash"):
            raise UserError(f"--fit {self.fit}: known: crop, squash")
        if self.per_shard < 1:
            raise UserError(f"--per-shard {self.per_shard}: must be 1 or more")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: must be from 1 to 100")
        if self.limit < 0:
            raise UserError(f"--limit {self.limit}: must be 1 or more, or 0 for all")


def shard_name(index: int) -> str:
    return f"shard-{index:06d}.tar"


def shard_files(out: Path) -> list[Path]:
    return [p for p in out.glob("shard-*.tar") if re.fullmatch(r"shard-\d{6,}\.tar", p.name)]


def size(path: Path) -> int:
    """Bytes, or -1 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder of shards, or None."""
    return read_json(folder / "manifest.json")


def head(options: Options, source: dict[str, Any]) -> dict[str, Any]:
    """How a manifest begins: what its shards are of."""
    return {"format": FORMAT, "options": asdict(options), "source": source}


def finished(out: Path, options: Options, source: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, where `out` holds all the shards of these options and this source. UserError where of others."""
    whole = all(size(out / name) == record["bytes"] for name, record in records(out, head(options, source)).items())
    return read_manifest(out) if whole else None


def records(out: Path, head: dict[str, Any]) -> dict[str, Record]:
    """File name → record of the shards that an earlier call finished. UserError where it was another call."""
    manifest, progress = read_manifest(out), out / ".progress"
    earlier = manifest or read_json(progress / "what.json")
    if earlier is None:
        if shard_files(out) and not progress.is_dir():
            raise UserError(f"--out {out}: it holds shards without a manifest; use another folder or --overwrite")
        return {}
    before, now = _flat(earlier), _flat(head)
    different = [
        f"{key} {before.get(key) or 'none'} there, {now[key] or 'none'} asked for"
        for key in now
        if before.get(key) != now[key]
    ]
    if different:
        raise UserError(f"--out {out}: holds other shards ({'; '.join(different)}); use another folder or --overwrite")
    found = manifest["shards"] if manifest else [read_json(p) for p in sorted(progress.glob("shard-*.tar.json"))]
    return {record["file"]: record for record in found if record}


def _flat(head: dict[str, Any]) -> dict[str, Any]:
    # "clip" is missing in what was written before there were features.
    return {"format": head.get("format"), "clip": "", **head.get("options", {}), **head.get("source", {})}


def begin(out: Path, head: dict[str, Any], finished: list[Record]) -> None:
    """Takes the manifest away: from now on .progress says which shards are there."""
    progress = out / ".progress"
    progress.mkdir(exist_ok=True)
    write_json(progress / "what.json", head)
    for record in finished:
        note(out, record)
    for name in ("manifest.json", "report.json"):
        (out / name).unlink(missing_ok=True)


def note(out: Path, record: Record) -> None:
    """One more shard is there."""
    write_json(out / ".progress" / f"{record['file']}.json", record)


def end(out: Path, manifest: dict[str, Any]) -> None:
    """All of them are, and nothing else."""
    names = {record["file"] for record in manifest["shards"]}
    for path in [*(p for p in shard_files(out) if p.name not in names), *out.glob(".*.tmp")]:
        path.unlink()  # left by an earlier, larger annotation file, and by a kill
    write_json(out / "manifest.json", manifest)
    shutil.rmtree(out / ".progress", ignore_errors=True)


def clear(out: Path) -> None:
    """Removes the shards of an earlier call."""
    shutil.rmtree(out / ".progress", ignore_errors=True)
    for path in [out / "manifest.json", out / "report.json", *shard_files(out)]:
        path.unlink(missing_ok=True)
