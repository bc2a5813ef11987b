"""The record of a search: a JSONL file that plots, resumes and redraws it. One writer at a time.

The first line says what was searched and with what; then come candidates, in the order of their index, each with its
point (base64 of little-endian float32: np.frombuffer(base64.b64decode(s), "<f4")), and after each generation a line
that closes it and has the SHA-256 of all before it. What a kill leaves after the last of those is dropped.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO, get_type_hints

import numpy as np

from t2i import files
from t2i.errors import UserError
from t2i.options import value_type
from t2i.search.settings import Settings, Stopping

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
    """(the file position after it, the values) of each whole line. UserError where one is none, and at the end of a
    generation that is not as it was written."""
    so_far = hashlib.sha256()
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {line[:40]!r} is no JSON object; not a record, or a damaged one")
            if "closes" in row and row.get("sha256", so_far.hexdigest()) != so_far.hexdigest():
                raise UserError(f"{path}: damaged before generation {row['closes']} ends; bring it back")
            so_far.update(line)
            yield file.tell(), row


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
    """The first line and the candidate of an index. UserError where there is none, or what replays it is not there."""
    head, found, last = read_head(path), None, -1
    for _, row in read_lines(path):
        if found and "index" not in row:  # the end of its generation, which is whole
            break
        if "index" in row:
            last = row["index"]
            found = row if last == index else found
    if found is None:
        raise UserError(f"--index {index}: {path} has candidates 0 to {last}")
    damaged = f"{path}: candidate {index} cannot be drawn"
    prompts, number = head.get("prompts"), found.get("prompt")
    if not isinstance(prompts, list) or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise UserError(f"{damaged}: the record has no prompts; bring it back")
    if type(number) is not int or not 0 <= number < len(prompts):
        raise UserError(f"{damaged}: prompt {number!r} of {len(prompts)}; bring the record back")
    for key in ("weights_sha256", "checkpoint"):
        if not isinstance(head.get(key), str):
            raise UserError(f"{damaged}: the record names no {key}; bring it back")
    for key in ("point", "by", "generation", "score"):
        if key not in found:
            raise UserError(f"{damaged}: it lacks {key!r}; bring the record back")
    try:
        point = unpack(found["point"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{damaged}: its point is none ({error}); bring the record back") from None
    if not np.isfinite(point).all():
        raise UserError(f"{damaged}: its point is not finite; bring the record back")
    return head, found


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def check_row(path: Path, row: dict[str, Any]) -> None:
    """UserError where a candidate, which may be anybody's, is not what `close_generation` writes."""
    wrong = [key for key in ("index", "prompt", "generation") if type(row.get(key)) is not int or row[key] < 0]
    wrong += [key for key in ("by", "point") if not isinstance(row.get(key), str)]
    wrong += [key for key in ("score",) if key not in row]
    for key, value in row.items():
        if key in ("by", "point", "gradient"):
            continue
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if isinstance(value, dict | list) != (key in ("terms", "objectives", "measures")) or not all(
            map(_is_number, values)
        ):
            wrong.append(key)
    for key in ("point", "gradient"):
        try:
            if key not in wrong and key in row and not np.isfinite(unpack(row[key])).all():
                wrong.append(key)
        except (ValueError, TypeError):
            wrong.append(key)
    if wrong:
        raise UserError(f"{path}: candidate {row.get('index')}: {wrong[0]} is damaged; bring the record back")


def settings_of(head: dict[str, Any]) -> Settings:
    """What a record's first line says of the search. UserError where values are none."""
    types, values = get_type_hints(Settings), {f.name: head[f.name] for f in fields(Settings) if f.name in head}
    for name, value in values.items():
        kind = types[name]
        able = value is None or (isinstance(value, kind) and not (isinstance(value, bool) and bool is not kind))
        if not able and not (type(value) is int and value_type(kind) is float):
            raise UserError(f"record: {name}={value!r}: no value of this setting; bring the record back")
    return Settings(**values)


class Record:
    """What a search has evaluated, and where it writes what it evaluates next."""

    def __init__(self, path: Path | None, head: dict[str, Any], write: bool = True):
        """Reads what is there. path None keeps nothing; write False only reads (all processes but the first)."""
        self.path, self.count = path, 0
        self.file: TextIO | None = None
        self.held = ExitStack()
        self.so_far = hashlib.sha256()  # of the file
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
                    check_row(path, row)
                    rows.append(row)
                    continue
                if "closes" in row:
                    if not isinstance(row["closes"], list) or not all(type(n) is int for n in row["closes"]):
                        raise UserError(f"{path}: no generation is {row['closes']!r}; the record is damaged")
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
        with open(path, "rb") as before:
            self.so_far = hashlib.file_digest(before, "sha256")
        if not end:
            self._write([json.dumps(head, ensure_ascii=False)])

    def _write(self, lines: list[str]) -> None:
        assert self.file is not None
        text = "".join(f"{line}\n" for line in lines)
        self.file.write(text)
        self.file.flush()
        self.so_far.update(text.encode())

    def close_generation(self, prompt: int, generation: int, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Writes a generation's candidates, gives them their indices, and closes it."""
        for row in rows:
            row["index"] = self.count
            self.count += 1
        if self.file is None:
            return
        lines = [json.dumps({"index": row["index"]} | row) for row in rows]
        digest = self.so_far.copy()
        digest.update("".join(f"{line}\n" for line in lines).encode())
        lines.append(json.dumps({"closes": [prompt, generation], "sha256": digest.hexdigest()} | facts))
        try:
            self._write(lines)
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
