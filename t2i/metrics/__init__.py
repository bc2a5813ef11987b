"""How good pictures are. A metric is one file here that exports METRIC (metric.py says what that holds) beside its
mathematics, `compute`; a network that judges is one file of networks/. Both are known by their files' names.

Nothing heavy is imported by this module: score.py --help lists all names without waiting for torch.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from t2i.errors import UserError, closest


def known() -> list[str]:
    """The names of all metrics: of the files that export METRIC. They are read, not run."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(f.stem for f in files if re.search(r"^METRIC\b", f.read_text(encoding="utf-8"), re.M))


def check(names: Sequence[str]) -> None:
    """UserError for a name that is no metric's."""
    for name in names:
        if name not in known():
            raise UserError(f"metric {name}: {closest(name, known())}")
