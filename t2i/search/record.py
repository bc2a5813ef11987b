"""The record of a search: a JSONL file that plots, resumes and redraws it. One writer at a time.

The first line says what was searched and with what; then come candidates, in the order of their index, each with its
point (base64 of little-endian float32: np.frombuffer(base64.b64decode(s), "<f4")), and after each generation a line
that closes it. What a kill leaves after the last of those is dropped.
"""

import base64
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from t2i import files
from t2i.errors import UserError
from t2i.search.settings import Stopping

FORMAT = 2
FREE = ("versions", "checkpoint", *(f.name for f in fields(Stopping)))  # may be other ones when a search goes on


def pack(point: np.ndarray) -> str:
    return base64.b64encode(np.asarray(point, "<f4").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def to_json(value: float) -> float | None:
    """JSON has no NaN: null stands for what is no number."""
    return float(value) if math.isfinite(value) else None


def from_json(value: float | None) -> float:
    """Undoes to_json."""
    return math.nan if value is None else float(value)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(the file position after it, the values) of each whole line."""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                yield file.tell(), json.loads(line)
            except ValueError:
                raise UserError(f"{path}: line {line[:40]!r} is no JSON; not a record, or a damaged one") from None


def read_head(path: Path) -> dict[str, Any]:
    """The first line of a record; UserError where there is none."""
    try:
        first = next(read_lines(path), (0, {}))[1]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the record.jsonl of a search") from None
    if not isinstance(first, dict) or first.get("search") != FORMAT:
        raise UserError(f"{path}: not a record of format {FORMAT}; name the record.jsonl of a search")
    return first


def read_candidate(path: Path, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first line and the candidate of an index."""
    head, last = read_head(path), -1
    for _, row in read_lines(path):
        if "index" in row:
            last = row["index"]
            if last == index:
                return head, row
    raise UserError(f"--index {index}: {path} has candidates 0 to {last}")


class Record:
    """What a search has evaluated, and where it writes what it evaluates next."""

    def __init__(self, path: Path | None, head: dict[str, Any], write: bool = True):
        """Reads what is there. path None keeps nothing; write False only reads (all processes but the first)."""
        self.path, self.count = path, 0
        self.file: TextIO | None = None
        self.held = ExitStack()
        self.known: dict[tuple[int, int], list[dict[str, Any]]] = {}
        head = {"search": FORMAT} | head
        if path is None:
            return
        end = 0
        if path.is_file() and next(read_lines(path), None) is not None:
            refuse_another_search(path, read_head(path), head)
            rows: list[dict[str, Any]] = []
            for position, row in read_lines(path):
                if "index" in row:
                    rows.append(row)
                    continue
                if "closes" in row:
                    self.known[tuple(row["closes"])] = rows  # type: ignore[index]
                    self.count += len(rows)
                end, rows = position, []
        if write:
            self._open(path, end, head)

    def _open(self, path: Path, end: int, head: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = f"{path}: another process is searching there; wait, or choose another --out"
        self.held.enter_context(files.lock(path.with_name(f".{path.name}.lock"), taken))
        self.file = file = self.held.enter_context(open(path, "a", encoding="utf-8"))  # noqa: SIM115
        file.truncate(end)
        if not end:
            file.write(json.dumps(head, ensure_ascii=False) + "\n")
            file.flush()

    def close_generation(self, prompt: int, generation: int, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Writes a generation's candidates, gives them their indices, and closes it."""
        for row in rows:
            row["index"] = self.count
            self.count += 1
        if self.file is None:
            return
        text = [json.dumps({"index": row["index"]} | row) for row in rows]
        text.append(json.dumps({"closes": [prompt, generation]} | facts))
        try:
            self.file.write("\n".join(text) + "\n")
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: {error.strerror}; free space and give the same command again, which goes on from here"
            ) from None

    def close(self) -> None:
        self.held.close()


def refuse_another_search(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Complains of the first setting in which a record is of another search."""
    old, new = ({k: v for k, v in json.loads(json.dumps(h)).items() if k not in FREE} for h in (old, new))
    for key in old | new:
        if old.get(key) != new.get(key):
            raise UserError(
                f"{path}: holds a search with {key}={old.get(key)}, not {new.get(key)}; choose another --out, "
                "or the same settings to go on with it"
            )
