"""The device to compute on, and what figures were measured on, for whoever reads them later."""

import os
import platform
import subprocess
from collections import Counter
from pathlib import Path

import torch

from t2i.errors import UserError, one_line
from t2i.version import __version__


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of a name; None is cuda where there is one. UserError where it cannot be used."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"device {name}: {one_line(error)}; use cpu") from None
    return device


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """Hardware and versions."""
    facts = {"CPU": f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores"}
    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        facts["GPU"] = ", ".join(f"{n} × {name}" for name, n in names.items())
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    facts["versions"] = f"t2i {__version__}{f' ({commit})' if commit else ''}, torch {torch.__version__}, "
    facts["versions"] += f"Python {platform.python_version()}"
    return facts
