"""The folder listing explains the system: imports run one way, names shadow nothing, nothing lies about."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "t2i").rglob("*.py"))
# Each may import those before it. Anything may import errors, interfaces and rng.
ORDER = [
    "config",
    "painting",
    "worlds",
    "data",
    "encoders",
    "nets",
    "augment",
    "parallel",
    "conditioning",
    "views",
    "losses",
    "step",
    "train",
]
FREE = {"errors", "interfaces", "rng", "parallel", "files", "pictures"}


def imports(path: Path) -> set[str]:
    """Names of t2i's parts that a file imports when it runs (not only for type checkers)."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for n in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "t2i" else [f"t2i.{a.name}" for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("t2i.")}
    return found


def part(path: Path) -> str:
    return path.relative_to(ROOT / "t2i").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    me, used = part(path), imports(path) - FREE
    if me in FREE:
        assert used <= FREE
    elif me in ORDER:
        later = set(ORDER[ORDER.index(me) + 1 :])
        assert not used & later, f"{me} imports {used & later}, which comes after it"
    if me in ("data", "nets", "encoders"):
        assert not used & ({"data", "nets", "encoders"} - {me})
    if me in ("metrics", "search", "model", "convert"):
        assert not used & {"step", "train"}
    if me == "config":
        assert not used


def test_no_file_shadows_a_module():
    # accelerate launch t2i/train.py puts t2i/ itself on sys.path
    for path in (ROOT / "t2i").iterdir():
        name = path.name.removesuffix(".py")
        if name.startswith("__") or not (path.is_dir() or path.suffix == ".py"):
            continue
        assert name not in sys.stdlib_module_names
        spec = find_spec(name)
        inside = spec is None or str(ROOT) in str(spec.origin or spec.submodule_search_locations)
        assert inside, f"t2i/{name} shadows {spec}"


def test_top_level_holds_only_what_belongs():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {p.split("/")[0] for p in listed}
    allowed = {"pyproject.toml", "t2i", "configs", "shards", "scripts", "tests", "README.md", "LICENSE"}
    assert {p for p in top if not p.startswith(".")} <= allowed
    assert not [p for p in listed if p.startswith("shards/") and p != "shards/README.md"]


def test_training_loop_stays_readable():
    assert len((ROOT / "t2i" / "train.py").read_text().splitlines()) < 250
