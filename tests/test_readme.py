"""What the README tells people to type exists and is understood."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from t2i import config

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every shell command: of fenced bash blocks, and of `code` that starts like one."""
    lines = []
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S):
        lines += block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    lines += [
        " ".join(code.split()) for code in re.findall(r"`((?:accelerate|ACCELERATE|python|bash) .*?)`", prose, re.S)
    ]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def script(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_command", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command, monkeypatch):
    words = [w for w in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\w+", w)]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
        subprocess.run(["bash", "-n", str(ROOT / words[1])], check=True)
    elif words[0] == "accelerate":
        rest = words[words.index("t2i/train.py") + 1 :]
        path = ROOT / rest.pop(0) if rest and "=" not in rest[0] else None
        config.load(path, [w for w in rest if not w.startswith("[")])
    else:
        assert words[0] == "python", command
        module = script(words[1])
        monkeypatch.setattr(sys, "argv", words[1:])
        module.arguments() if hasattr(module, "arguments") else module.parser().parse_args()


def test_the_readme_names_what_exists():
    for path in re.findall(r"\]\(([^)#]+)\)|`((?:t2i|scripts|configs)/[\w./-]+)`", TEXT):
        name = path[0] or path[1]
        assert name.startswith("http") or (ROOT / name).exists(), name
    opening = TEXT.split("\n## ")[0]
    assert "![" in opening, "the README opens with a picture grid"
    assert "RESULTS\n" not in TEXT.split("## Results")[1][:20]


@pytest.mark.parametrize("name", ["train", "generate", "search", "score", "ablate", "results", "add a loss"])
def test_the_readme_covers(name):
    headings = [h.lower() for h in re.findall(r"^#+ (.*)$", TEXT, re.M)]
    assert any(name in h for h in headings), headings
