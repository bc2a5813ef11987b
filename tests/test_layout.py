"""The folder listing explains the system: imports run one way, names shadow nothing, nothing lies about."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "t2i").rglob("*.py"))
# Anything may import these, and they import nothing else of t2i.
FREE = {"errors", "interfaces", "rng", "parallel", "files", "pictures", "schedule", "version", "weights"}
# Each part may import those before it, and FREE.
ORDER = [
    "options",  # of commands, checked before anything heavy is imported
    # what a run is made of
    "painting", "worlds", "encoders", "nets", "growth", "config", "stages", "data", "augment", "diffaugment",
    "objective", "run", "conditioning", "views", "losses", "build", "ema", "step", "launch",
    # what comes of it, and what is done with that
    "machine", "model", "checkpoint", "probes", "metrics", "evaluation", "log", "loop",
    "prompts", "drawing", "search", "fit", "benchmark", "ablation",
    # commands
    "manual", "train", "__init__",
]  # fmt: skip
APART = {"data", "encoders", "nets"}  # one does not import another; nets may look through encoders/trunk.py


def targets(path: Path) -> set[str]:
    """The modules of t2i that a file imports anywhere, for type checkers too, as t2i.a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{a.name}" for a in node.names}
            found |= {name if is_module(name) else node.module for name in inner}
    return {name for name in found if name.startswith("t2i.")}


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def name_of(path: Path) -> str:
    """t2i/a/b.py → t2i.a.b, t2i/a/__init__.py → t2i.a."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part(path: Path) -> str:
    return path.relative_to(ROOT / "t2i").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    me, names = part(path), targets(path)
    used = {name.split(".")[1] for name in names} - {me}
    if me in FREE:
        assert used <= FREE
        return
    assert me in ORDER, f"t2i/{me} has no place in ORDER of {Path(__file__).name}"
    before = set(ORDER[: ORDER.index(me)])
    assert used <= FREE | before, f"{me} imports {used - FREE - before}, which does not come before it"
    if me in APART:
        across = {n for n in names if n.split(".")[1] in APART - {me}}
        assert across <= ({"t2i.encoders.frozen", "t2i.encoders.trunk", "t2i.encoders.clip"} if me == "nets" else set())


def test_no_module_imports_itself_through_others():
    graph = {name_of(path): targets(path) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_are_short():
    lengths = {str(p.relative_to(ROOT / "t2i")): len(p.read_text().splitlines()) for p in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def test_folders_are_flat():
    assert max(len(p.relative_to(ROOT / "t2i").parents) for p in MODULES) <= 3


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
    allowed = {"pyproject.toml", "t2i", "configs", "docs", "shards", "scripts", "tests", "README.md", "LICENSE"}
    assert {p for p in top if not p.startswith(".")} <= allowed
    assert not [p for p in listed if p.startswith("shards/") and p != "shards/README.md"]


@pytest.mark.parametrize(("file", "most"), [("train.py", 60), ("loop.py", 200), ("step.py", 150)])
def test_training_stays_readable(file, most):
    """The loop was one file of at most 250 lines; now it is two, and the step beside them."""
    assert len((ROOT / "t2i" / file).read_text().splitlines()) < most
