"""What the commands' options have in common. Imports nothing heavy: --help and a misspelt option answer at once.

The same word means the same everywhere: KEY=VALUE changes a setting of a configuration, lists of values have commas
(--seeds 0,1), lists of files have spaces (as shells expand *.yaml), --seed is one number, --out is what is written,
--json where figures go, --device cpu, cuda or cuda:1, --precision as train.precision.
"""

import argparse
from collections.abc import Sequence

from t2i.errors import UserError

DEVICE = "cpu, cuda, cuda:1, ... (cuda where there is one)"  # the help of --device
OVERRIDES = "settings of the configuration, such as train.batch=8"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it stands."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def at_least(options: argparse.Namespace, **least: int) -> None:
    """UserError where an option that is given (or each number of a list) is below its least value."""
    for name, smallest in least.items():
        given = getattr(options, name)
        values = given if isinstance(given, list) else [] if given is None else [given]
        if any(value < smallest for value in values):
            shown = ",".join(map(str, values))
            raise UserError(f"--{name.replace('_', '-')} {shown}: must be {smallest} or more")


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
