"""What the README and docs/ tell people to type exists and is understood."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from t2i import config

ROOT = Path(__file__).parents[1]
PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXT = PAGES["README.md"]


def commands(text: str) -> list[str]:
    """Every shell command: of fenced bash blocks, and of `code` that starts like one."""
    lines = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        lines += block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
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


# What docs/extend.md adds is run by test_extend.py.
COMMANDS = [command for page, text in PAGES.items() if page != "docs/extend.md" for command in commands(text)]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_command_is_understood(command, monkeypatch):
    words = [w for w in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\w+", w)]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
        subprocess.run(["bash", "-n", str(ROOT / words[1])], check=True)
    elif words[0] == "accelerate":
        rest = words[words.index("t2i/train.py") + 1 :]
        path = ROOT / rest.pop(0) if rest and "=" not in rest[0] else None
        config.load(path, [w for w in rest if not w.startswith("[")])
    elif words[:2] == ["python", "t2i/train.py"]:
        assert words[2:] == ["--help"]
    else:
        assert words[0] == "python", command
        module = script(words[1])
        monkeypatch.setattr(sys, "argv", words[1:])
        module.arguments() if hasattr(module, "arguments") else module.parser().parse_args()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_what_exists(page):
    for link, name in re.findall(r"\]\(([^)]+)\)|`((?:t2i|scripts|configs|docs)/[\w./-]+)`", PAGES[page]):
        if link.startswith("#"):  # as the headings are turned into anchors
            anchors = [h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", PAGES[page], re.M)]
            assert link[1:] in anchors
        elif link and not link.startswith("http"):
            assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), link
        elif name:
            assert (ROOT / name).exists(), name


def test_the_readme_opens_with_a_picture_and_the_two_commands():
    opening = TEXT.split("\n## ")[0]
    assert "![" in opening
    assert commands(opening) == ["bash scripts/demo.sh", "bash scripts/test.sh"]


@pytest.mark.parametrize("name", ["train", "generate", "search", "score", "ablate", "add a part"])
def test_the_readme_covers(name):
    headings = [h.lower() for h in re.findall(r"^#+ (.*)$", TEXT, re.M)]
    assert any(name in h for h in headings), headings


def test_results_stand_beside_their_commands():
    for section in PAGES["docs/results.md"].split("\n## ")[1:]:
        assert commands(section), section.splitlines()[0]
