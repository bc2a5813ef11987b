"""What the commands' options have in common, and checks of their values. Imports nothing heavy.

The same word means the same everywhere: KEY=VALUE changes a setting of a configuration, lists of values have commas
(--seeds 0,1), lists of files have spaces (as shells expand *.yaml), --seed is one number, --out is what is written,
--json where figures go, --device cpu, cuda or cuda:1, --precision as train.precision.
"""

from collections.abc import Sequence
from typing import Any

from t2i.errors import UserError
from t2i.options import flag

DEVICE = "cpu, cuda, cuda:1, ... (cuda where there is one)"  # the help of --device
OVERRIDES = "settings of the configuration, such as train.batch=8"


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
