"""What docs/extend.md shows is complete: its files, in a copy of the package, train, generate, search and score."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.S))  # file → content
SIZES = [
    "model.resolution=16", "train.batch=4", "train.kimg=0.012", "log.every=1", "log.grid=2", "log.snapshot_kimg=0",
    "data.workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The project with all the files of the document in it."""
    place = tmp_path_factory.mktemp("extended")
    for name in ("t2i", "scripts", "configs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, content in BLOCKS.items():
        target = place / name
        assert not target.exists() or name == "captions.py", f"{name} is a file of the package already"
        target.write_text(content)
    run(
        place,
        "scripts/make_shards.py",
        *["scenes", "--world", "squares", "--out", "shards/squares", "--count", "40", "--size", "16"],
    )
    return place


def run(place: Path, *command: str) -> str:
    """A python command in the place; its output."""
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(place: Path, *settings: str) -> None:
    run(place, "t2i/train.py", "configs/scenes_world.yaml", *SIZES, *settings)


def last_line(place: Path, name: str) -> dict[str, float]:
    return json.loads((place / "runs" / name / "metrics.jsonl").read_text().splitlines()[-1])


def test_every_kind_of_part_is_shown():
    kinds = {str(Path(name).parent) for name in BLOCKS} - {"."}
    assert kinds == {
        "t2i/losses", "t2i/nets/generators", "t2i/nets/discriminators", "t2i/encoders", "t2i/metrics",
        "t2i/metrics/networks", "t2i/search/algorithms", "t2i/worlds",
    }  # fmt: skip


def test_a_run_of_new_parts_alone_trains_draws_searches_and_is_scored(place):
    """World, generator, discriminator, frozen network, two losses and a metric, in one run; then an algorithm."""
    train(
        place, "name=new", "data.shards=shards/squares", "generator.name=plain", "generator.channels=4",
        "discriminator.name=plain", "discriminator.channels=4", "loss.brightness.weight=0.1",
        "loss.brightness.half_life=50", "loss.same_colours.weight=[[0,1],[1,0.5]]", "encoders.other.colours=2",
        "eval.every=0.008", "eval.reference=shards/squares", "eval.metrics=[brightness_gap]", "eval.samples=8",
    )  # fmt: skip
    lines = [json.loads(line) for line in (place / "runs/new/metrics.jsonl").read_text().splitlines()]
    assert any(line.get("G/brightness", -1) >= 0 and line["G/same_colours"] > 0 for line in lines)
    assert any("eval/brightness_gap" in line for line in lines)
    before = (place / "runs/new/checkpoints/000000003/generator.safetensors").read_bytes()

    run(place, "scripts/generate.py", "--checkpoint", "runs/new", "--prompt", "A red square.", "--out", "out/grid.png")
    with Image.open(place / "out/grid.png") as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 10
    run(
        place, "scripts/generate.py", "--checkpoint", "runs/new", "--prompt", "A red square.", "--search", "climb",
        "--population", "4", "--generations", "3", "--views", "1", "--out", "out/climb",
    )  # fmt: skip
    assert (place / "out/climb/grid.png").is_file()
    run(
        place, "scripts/score.py", "--checkpoint", "runs/new", "--reference", "shards/squares", "--metrics",
        "brightness_gap", "--samples", "8", "--json", "out/score.json",
    )  # fmt: skip
    assert json.loads((place / "out/score.json").read_text())["scores"]["brightness_gap"] >= 0

    train(
        place, "name=new", "data.shards=shards/squares", "generator.name=plain", "generator.channels=4",
        "discriminator.name=plain", "discriminator.channels=4", "loss.brightness.weight=0.1", "train.kimg=0.016",
    )  # fmt: skip
    after = (place / "runs/new/checkpoints/000000004/generator.safetensors").read_bytes()
    assert len(before) == len(after)
    assert before != after


@pytest.mark.parametrize(
    ("generator", "discriminator"), [("plain", "stylegan2"), ("stylegan2", "plain"), ("stylegan3", "plain")]
)
def test_new_networks_meet_those_that_ship(place, generator, discriminator):
    small = {
        "stylegan2": ["channel_base=64", "channel_max=8"],
        "stylegan3": ["channel_base=64", "channel_max=8", "layers=4"],
        "plain": ["channels=4"],
    }
    name = f"{generator}-{discriminator}"
    given = [f"generator.{o}" for o in small[generator]] + [f"discriminator.{o}" for o in small[discriminator]]
    train(
        place, f"name={name}", "data.shards=shards/squares", f"generator.name={generator}",
        f"discriminator.name={discriminator}", *given, "loss.matching.weight=0.5", "loss.mode_seeking.weight=0.1",
    )  # fmt: skip
    assert last_line(place, name)["G/adversarial"] > 0


def test_what_a_new_network_cannot_do_is_one_line(place):
    command = [sys.executable, "t2i/train.py", "configs/scenes_world.yaml", *SIZES, "data.shards=shards/squares"]
    for change, line in [
        ("loss.path_length.weight=1", "no intermediate space W"),
        ("generator.channles=3", "did you mean 'channels'"),
        ("generator.channels=0", "generator.channels=0: above 0"),
        ("stages=[{kimg: 0, resolution: 8},{kimg: 1, resolution: 16}]", "generator.name=plain: does not grow"),
    ]:
        done = subprocess.run(
            [*command, "generator.name=plain", "discriminator.channel_max=8", change], cwd=place, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(place), "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 2
        assert line in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_data_set_of_ones_own(place):
    photos = place / "photos"
    photos.mkdir()
    for n, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40, 30), colour).save(photos / f"{n}.jpg")
        (photos / f"{n}.txt").write_text(f"a {colour} field\nnothing but {colour}\n")
    run(place, "captions.py")
    made = ["coco", "--images", "photos", "--annotations", "captions.json", "--out", "shards/photos", "--size", "16"]
    run(place, "scripts/make_shards.py", *made)
    train(
        place, "name=photos", "data.shards=shards/photos", "generator.channel_base=64", "generator.channel_max=8",
        "discriminator.channel_base=64", "discriminator.channel_max=8",
    )  # fmt: skip
    assert last_line(place, "photos")["kimg"] == 0.012
