"""A metric is a file dropped into t2i/metrics, a network that judges another in its networks/: nothing else is told."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from t2i.encoders.vgg import PREPROCESSING
from t2i.metrics import known, networks

ROOT = Path(__file__).parents[1]

NETWORK = '''
"""How bright a picture is."""

from t2i.metrics.networks import Network, Setting, Settings

SETTINGS = {"lamp": Setting("WATTS", "that pictures are held against"), "shade": Setting("NAME", "before it", "none")}


def missing(settings: Settings):
    return None if settings["lamp"] else f"it is dark here: give {settings.spell('lamp')} WATTS"


def load(settings: Settings, device):
    assert settings["shade"] == "none"
    factor = float(settings["lamp"])
    return Network(lambda images, numbers: {"light": factor * images.mean((1, 2, 3))}, f"{factor:g} W")
'''
METRIC = '''
"""Brightness."""

from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: {"brightness": e.fake["light"], "brightness_gap": float(e.fake["light"].mean() - e.real["light"].mean())},
    networks=("lamp",),
    features=("light",),
    reference=True,
    power_of_two=True,
    smallest=8,
    lower=True,
)
'''


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    """score.py of a copy of the project to which both files were added."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in ("t2i", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "t2i" / "metrics" / "networks" / "lamp.py").write_text(NETWORK)
    (copy / "t2i" / "metrics" / "brightness.py").write_text(METRIC)

    def run(*arguments, code=0):
        command = [sys.executable, str(copy / "scripts" / "score.py"), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "500"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout if not code else done.stderr

    return run


def test_an_added_metric_is_listed_computed_and_compared(score, tiny_shards, tmp_path):
    from PIL import Image

    said = score("--help")
    assert "Metrics: brightness, clean_fid, " in said
    assert "--lamp WATTS" in said
    assert "that pictures are held against" in said
    for n, level in enumerate((0, 51, 255)):
        Image.new("RGB", (16, 16), (level, level, level)).save(tmp_path / f"{n}.png")
    (tmp_path / "captions.txt").write_text("black\ngrey\nwhite\n")
    ask = ["--pictures", tmp_path, "--captions", tmp_path / "captions.txt", "--reference", tiny_shards]
    ask += ["--metrics", "brightness", "--device", "cpu"]
    assert "--metrics brightness: it is dark here: give --lamp WATTS" in score(*ask, code=2)
    files = [tmp_path / f"{name}.json" for name in "ab"]
    for file, watts in zip(files, (10, 40)):
        assert "lower" in score(*ask, "--lamp", watts, "--json", file)
    results = [json.loads(file.read_text()) for file in files]
    assert [r["scores"]["brightness"] for r in results] == pytest.approx([-2, -8])
    assert [r["protocol"]["lamp"] for r in results] == ["10 W", "40 W"]
    assert results[0]["intervals"]["brightness"] == pytest.approx(
        [-28.2896, 24.2896], abs=1e-3
    )  # Student's of −10, −6, 10
    assert "lamp: 10 W, 40 W" in score("--compare", *files, code=2)
    table = score("--compare", *files, "--force")
    assert [line.split()[-1] for line in table.splitlines() if line.startswith("brightness")] == ["lower", "lower"]


def test_files_of_networks_say_all_that_is_asked_of_them():
    assert {
        "inception",
        "inception_clean",
        "clip",
        "vgg",
        "probe",
        "detector",
        "patches",
        "lpips_alex",
        "lpips_vgg",
        "shapes",
        "trunk",
    } == set(networks.known())
    settings = networks.declared()
    assert settings["preprocessing"].choices == tuple(sorted(PREPROCESSING))
    declared = [
        name for network in networks.known() for name in import_module(f"t2i.metrics.networks.{network}").SETTINGS
    ]
    assert len(declared) == len(set(declared)), "two networks have a setting of one name"
    assert set(known()) == {
        "fid", "clean_fid", "kid", "is", "prdc", "clip_score", "clip_fid", "cmmd", "r_precision", "swd", "ms_ssim",
        "lpips_diversity", "ppl", "eq_t", "eq_r", "soa", "vgg", "probe", "kd", "fd", "prdc_trunk", "vendi", "shape",
        "shape_kd",
    }  # fmt: skip
