"""Whether pictures of a drawn world show what their prompts ask for, judged by a small classifier of that world.

A probe is one file here that exports PROBE (measure.py says what that holds); its name is what --world knows.
Nothing heavy is imported by this module: probe.py --help lists all names without waiting for torch.
"""

import re
from pathlib import Path


def known() -> list[str]:
    """The names of all probes: of the files that export PROBE. They are read, not run."""
    files = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(f.stem for f in files if re.search(r"^PROBE\b", f.read_text(encoding="utf-8"), re.M))
