"""The options of commands. A dataclass's fields become options, with their names, types, defaults and comments.

A comment stands behind its field, or above it where it is long. So whoever adds a field has added the option.

The same word means the same in every command: KEY=VALUE changes a setting of a configuration, lists of values have
commas (--seeds 0,1), lists of files have spaces (as shells expand *.yaml), --seed is one number, --out is what is
written, --json where figures go, --device cpu, cuda or cuda:1, --precision as train.precision.
"""

import argparse
import ast
import inspect
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn, get_args, get_type_hints

from t2i.errors import UserError

DEVICE = "cpu, cuda, cuda:1, ... (cuda where there is one)"  # the help of --device
OVERRIDES = "settings of the configuration, such as train.batch=8"
OPEN: Any = None  # the default of a field whose real default depends on others; its comment says which that is
DEVICE = "cpu, cuda, cuda:1, ... (cuda where there is one)"  # the help of --device
OVERRIDES = "settings of the configuration, such as train.batch=8"


class Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else does (t2i.errors.run_command)."""

    def __init__(self, description: str | None, epilog: str | None = None):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, epilog=epilog, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists all options")


def add_options(
    parser: Any, kind: type, leave_out: Collection[str] = (), names: Mapping[str, str] | None = None, **defaults: Any
) -> None:
    """An option for each field of a dataclass, its own before those of its bases.

    parser: argparse's, or a group of one. names: field → option where it is not --field. defaults: shown in place of
    the dataclass's. Options that are not given stay out of the namespace: see `given`.
    """
    types, known = get_type_hints(kind), {f.name: f.default for f in fields(kind)} | defaults
    for name, comment in field_comments(kind).items():
        if name in leave_out:
            continue
        default: Any = known[name]
        if types[name] is bool:
            default = "on" if default else "off"
        shown = "" if default in (OPEN, "") else f" ({default})"
        how: dict[str, Any] = {"type": value_type(types[name]), "metavar": name.upper()}
        if types[name] is bool:
            how = {"action": argparse.BooleanOptionalAction}
        text = (comment + shown).replace("%", "%%")
        parser.add_argument(flag(name, names), dest=name, help=text, default=argparse.SUPPRESS, **how)


def given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The fields of a dataclass that the command line names, with their values."""
    return {f.name: getattr(options, f.name) for f in fields(kind) if hasattr(options, f.name)}


def flag(name: str, names: Mapping[str, str] | None = None) -> str:
    """held_out → --held-out."""
    return (names or {}).get(name) or "--" + name.replace("_", "-")


def value_type(annotation: Any) -> Any:
    """float | None → float."""
    return next((t for t in get_args(annotation) if t is not type(None)), annotation)


def field_comments(kind: type) -> dict[str, str]:
    """The comment of every field, in the order of the source: a dataclass's own before those of its bases."""
    found: dict[str, str] = {}
    for owner in kind.__mro__:
        if is_dataclass(owner):
            found = found | {name: text for name, text in _own_comments(owner).items() if name not in found}
    return found


def _own_comments(kind: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(kind))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    declared = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): comment_of(node, source.splitlines()) for node in declared}


def comment_of(field: ast.AnnAssign, lines: list[str]) -> str:
    """What stands in the comment lines above a field of a source, and behind it."""
    above: list[str] = []
    for line in reversed(lines[: field.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip("# "))
    last = lines[(field.end_lineno or field.lineno) - 1].encode()[field.end_col_offset or 0 :].decode()
    return " ".join([*above, last.partition("#")[2].strip()]).strip()


# ---- checks of values


def at_least(options: Any, **least: int) -> None:
    """UserError where an option that is given (or a number of a list) is below its least value."""
    for name, smallest in least.items():
        value = getattr(options, name)
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if any(number < smallest for number in numbers):
            raise UserError(f"{flag(name)} {','.join(map(str, numbers))}: must be {smallest} or more")


def whole_numbers(text: str, option: str) -> list[int]:
    """'0,1,2' → [0, 1, 2]."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: whole numbers with commas between, such as 0,1,2") from None


def words(text: str, option: str, known: Sequence[str]) -> list[str]:
    """'fp32,bf16' → ['fp32', 'bf16'], all of them known."""
    for word in text.split(","):
        if word not in known:
            raise UserError(f"{option} {word}: known: {', '.join(known)}")
    return text.split(",")
