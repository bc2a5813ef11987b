"""All settings of a training with their comments, read from the source without running or importing it."""

import ast
import json
from pathlib import Path

from t2i.options import comment_of

HERE = Path(__file__).parent
EMPTY: dict[str, object] = {"list": [], "dict": {}}


def settings() -> str:
    """Lines of 'section.setting=default  comment', as `train.py --help` prints them."""
    source = (HERE / "config.py").read_text(encoding="utf-8")
    classes = _classes(source)
    lines = ["Settings, with their defaults:", *_fields("Config", "", classes, source)]
    for kind in ("generators", "discriminators"):
        for file in sorted((HERE / "nets" / kind).glob("*.py")):
            if not file.stem.startswith("_"):
                text = file.read_text(encoding="utf-8")
                lines += ["", f"Of {kind[:-1]}.name={file.stem}:"]
                lines += _fields("Options", f"{kind[:-1]}.", _classes(text), text)
    return "\n".join(lines)


def _classes(source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _fields(name: str, prefix: str, classes: dict[str, ast.ClassDef], source: str) -> list[str]:
    """The settings of one dataclass, those of dataclasses in it behind its name."""
    lines, rows = [], source.splitlines()
    for node in classes[name].body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            continue
        kind, field = ast.unparse(node.annotation), node.target.id
        if kind.startswith("ClassVar"):
            continue
        if kind in classes:
            lines += _fields(kind, f"{prefix}{field}.", classes, source)
            continue
        comment = comment_of(node, rows)
        lines.append(f"  {prefix}{field}={_default(node.value)}" + (f"  # {comment}" if comment else ""))
    return lines


def _default(value: ast.expr) -> str:
    """As key=value takes it."""
    if isinstance(value, ast.Call):  # field(default_factory=...)
        factory = value.keywords[0].value
        made = ast.literal_eval(factory.body) if isinstance(factory, ast.Lambda) else EMPTY[ast.unparse(factory)]
    else:
        made = ast.literal_eval(value)
    return (made or "''") if isinstance(made, str) else json.dumps(made).replace('"', "")
