"""Commands answer at once: --help and a mistake in an option wait for nothing heavy; and the table that times them."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from t2i import options
from t2i.benchmark import startup
from t2i.benchmark.table import table
from t2i.errors import UserError

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(p.name for p in (ROOT / "scripts").glob("*.py"))
# Runs a command as `python` would, and tells on the last line of stderr whether torch was imported.
WATCHED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def watched(*words: str) -> tuple[int, str, str]:
    """Exit status, output, and whether torch was imported."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    *said, imported = done.stderr.strip().splitlines()
    return done.returncode, done.stdout + "\n".join(said), imported


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_no_torch(script):
    status, said, imported = watched(f"scripts/{script}", "--help")
    assert (status, imported) == (0, "False")
    assert f"python scripts/{script}" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ablate.py configs/ablation.yaml --jobs 0", "--jobs 0"),
        ("ablate.py configs/ablation.yaml --seeds x", "--seeds x"),
        ("ablate.py configs/ablation.yaml --only nope", "--only nope"),
        ("ablate.py nowhere.yaml", "nowhere.yaml"),
        ("train_clip.py --shards a --val b --out c --steps 0", "--steps 0: must be 1 or more"),
        ("train_clip.py --shards a --val b --out c --patch 7", "--patch 7: must divide"),
        ("train_clip.py --shards a --val b --out c --arch vt", "--arch vt: known: resnet, vit; did you mean 'vit'?"),
        ("train_clip.py --shards a --val b --out c --stepz 3", "--stepz"),
        ("train_vgg.py --shards a --out b.safetensors --widths 8,x", "--widths 8,x"),
        ("train_vgg.py --shards a --out b.safetensors --widths 8,0", "--widths 8,0: must be 1 or more"),
        ("benchmark.py --precision fp32,fp64", "--precision fp64"),
        ("benchmark.py --set train.kmig=1", "train.kmig"),
        ("benchmark.py --compare nowhere.yaml", "nowhere.yaml"),
        ("probe.py --count 0", "--count 0: must be 1 or more"),
        ("probe.py --world mars", "--world: invalid choice: 'mars'"),
        ("score.py --reference x --metrics fido", "did you mean 'fid'"),
        ("score.py --reference x --samples 1", "--samples 1: 2 or more"),
        ("score.py --reference x --preprocessing cafe", "--preprocessing cafe: known: caffe, torchvision"),
        ("score.py --checkpoint x", "no captions: give --reference"),
        ("score.py --compare x.json", "two files or more"),
        ("benchmark_kernels.py attention --lengths 8,0", "--lengths 8,0"),
    ],
)
def test_a_mistake_in_an_option_is_told_before_torch_is_imported(words, told):
    script, *rest = words.split()
    status, said, imported = watched(f"scripts/{script}", *rest)
    assert (status, imported) == (2, "False")
    assert said.startswith("error: ")
    assert "\n" not in said.strip()
    assert told in said


def test_every_command_has_a_row(monkeypatch):
    monkeypatch.setattr(startup, "cpu_seconds", lambda command, folder: 0.5)
    rows = startup.startup(startup.commands())
    shown = table(rows, startup.COLUMNS)
    for script in SCRIPTS:
        assert re.search(rf"^scripts/{script} --help +0\.50 +0$", shown, re.M)
    for said in (
        "t2i/train.py --help",
        "generate.py --prompt x",
        "--search nope",
        "trian.batch=8",
        "data.shards=nowhere",
    ):
        assert said in shown


def test_seconds_are_of_the_whole_command_and_the_least(monkeypatch, tmp_path):
    used = startup.cpu_seconds(startup.Command(("scripts/train_vgg.py", "--help")), str(tmp_path))
    assert 0 < used < 60
    wrong = startup.Command(("scripts/train_vgg.py", "--help"), status=2)
    with pytest.raises(UserError, match=r"train_vgg.py --help: exit status 0, not 2"):
        startup.cpu_seconds(wrong, str(tmp_path))
    taken = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(startup, "cpu_seconds", lambda command, folder: next(taken))
    (row,) = startup.startup([wrong], repeat=3)
    assert row == {"command": "scripts/train_vgg.py --help", "CPU s": 1.0, "exit": 2}


def test_table():
    rows = [{"a": "x", "b": 1.25, "c": "1e-6"}, {"a": "long", "b": 100.0}]
    assert table(rows, {"a": "", "b": ".1f", "c": ".2f"}).splitlines() == [
        "a         b     c",
        "x       1.2  1e-6",
        "long  100.0",
    ]


def test_values_are_checked():
    options.at_least(SimpleNamespace(some_count=None), some_count=1)
    with pytest.raises(UserError, match="--some-count 0: must be 1 or more"):
        options.at_least(SimpleNamespace(some_count=0), some_count=1)
    with pytest.raises(UserError, match="--some-count 3,0: must be 1 or more"):
        options.at_least(SimpleNamespace(some_count=[3, 0]), some_count=1)
    assert options.whole_numbers("0,12", "--seeds") == [0, 12]
    assert options.words("a,b", "--kind", ["a", "b", "c"]) == ["a", "b"]
    with pytest.raises(UserError, match="--kind d: known: a, b, c"):
        options.words("a,d", "--kind", ["a", "b", "c"])
