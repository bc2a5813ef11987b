"""Ablations: their YAML, what of them is still to do, the runs themselves, and the page, read by a browser."""

import csv
import importlib.util
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from t2i import config
from t2i.ablation import chart, commands, jobs, pictures, plan, report, results, slots, summary, trials
from t2i.errors import UserError

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCORE = """import json, sys; json.dump({"kimg": 1, "shares": {"both": %s, "none": None}}, open(sys.argv[1], "w"))"""


TINY = [
    "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128", "generator.channel_max=8",
    "discriminator.channel_max=8", "generator.latent_dim=8", "generator.style_dim=8",
    "generator.mapping_layers=1", "train.batch=4", "train.kimg=0.008", "log.every=1", "log.grid=2",
    "log.snapshot_kimg=0",
    "data.workers=0",
]  # fmt: skip


def script():
    spec = importlib.util.spec_from_file_location("ablate_script", ROOT / "scripts" / "ablate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run in, since runs/ is below the present one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, **values):
    path = folder / "given.yaml"
    path.write_text(
        yaml.safe_dump(
            {"config": str(ROOT / "configs" / "scenes.yaml"), "rows": {"base": []}} | values, sort_keys=False
        )
    )
    return path


# ---- the YAML


def test_rows_and_seeds_become_runs(here):
    other = here / "other.yaml"
    other.write_text("train: {kimg: 3}")
    a = plan.load(
        write(
            here,
            name="x",
            overrides=["train.kimg=2", "train.batch=4"],
            seeds=[0, 7],
            rows={
                "base": None,
                "clip": ["loss.img_txt_clip.weight=2", "train.batch=16"],
                "else": {"config": str(other)},
            },
        ),
        ["log.keep=1"],
    )
    assert [t.name for t in a.trials] == ["base-0", "clip-0", "else-0", "base-7", "clip-7", "else-7"]
    base, clip, third = (t.settings for t in a.trials[3:])
    assert (base.seed, base.name, base.runs) == (7, "base-7", "runs/x")
    assert (base.train.kimg, base.train.batch, base.log.keep) == (2, 4, 1)
    assert (clip.loss["img_txt_clip"]["weight"], clip.train.batch) == (2, 16)  # a row's own come later
    assert (third.train.kimg, third.generator.noise) == (2, True)
    assert base.generator.noise is False
    assert a.prompts == base.log.prompts
    assert a.reference == base.data.shards
    assert plan.load(write(here), seeds=[4]).trials[0].name == "base-4"
    ran = here / "runs" / "given" / "base-12"
    ran.mkdir(parents=True)
    (ran / "config.yaml").touch()
    other = plan.load(write(here), seeds=[4])
    assert (other.seeds, [t.seed for t in other.trials]) == ([4], [4, 12])  # to run; on the page


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rows": {"clip": ["loss.img_txt_clap.weight=1"]}}, ["row clip", "loss.img_txt_clap", "'img_txt_clip'"]),
        ({"rows": {"clip": ["loss.img_txt_clip.temprature=1"]}}, ["row clip", "temprature", "'temperature'"]),
        ({"rows": {"b": ["train.kmig=1"]}}, ["row b", "train.kmig", "'kimg'"]),
        ({"rows": {"b": ["train.batch=x"]}}, ["row b", "train.batch"]),
        ({"rows": {"b": ["generator.name=stylegan9"]}}, ["row b", "stylegan2"]),
        ({"rows": {"b": ["seed=3"]}}, ["row b", "seed=3", "leave it out"]),
        ({"rows": {"b": ["train.minutes=3"]}}, ["row b", "train.minutes", "equal kimg"]),
        ({"rows": {"b": "loss.r1.weight=0"}}, ["row b", "a list"]),
        ({"rows": {"b": {"override": []}}}, ["row b", "override", "'overrides'"]),
        ({"rows": {"b": {"config": "nowhere.yaml"}}}, ["row b", "nowhere.yaml"]),
        ({"rows": {"a/b": []}}, ["row a/b", "folder"]),
        ({"rows": {}}, ["needs rows"]),
        ({"config": ""}, ["row base", "no config"]),
        ({"rws": {}}, ["rws", "'rows'"]),
        ({"seeds": [0, "x"]}, ["seeds", "whole numbers"]),
        ({"pictures": -1}, ["pictures=-1"]),
        ({"pictures": 2, "reference": "pipe:touch x"}, ["reference=pipe:touch x", "runs no command"]),
        ({"name": "a b"}, ["name=a b"]),
        ({"scores": {"s": "true {run}"}}, ["score s", "{json}"]),
        ({"scores": {"s": "true {json} {data.shard}"}}, ["score s", "{data.shard}", "'data.shards'"]),
        ({"scores": {"s": "no-such-program {json}"}}, ["score s", "no-such-program"]),
        ({"scores": {"s": "python nowhere.py {json}"}}, ["score s", "nowhere.py"]),
        ({"scores": {"s": {"command": "true {json}", "hihger": ["a"]}}}, ["score s", "'higher'"]),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(here, values, said):
    with pytest.raises(UserError) as error:
        plan.load(write(here, **values))
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)
    assert not (here / "runs").exists()


def test_all_mistakes_are_told_at_once(here):
    rows = {"one": ["train.kmig=1"], "two": ["loss.r9.weight=1"], "three": []}
    with pytest.raises(UserError, match=r"row one.*row two"):
        plan.load(write(here, rows=rows))
    (here / "twice.yaml").write_text("rows:\n  a: []\n  a: [train.batch=4]\n")
    with pytest.raises(UserError, match="'a' stands twice"):
        plan.load(here / "twice.yaml")
    with pytest.raises(UserError, match="no such file"):
        plan.load(here / "nothing.yaml")


def test_a_scores_command_is_filled_in(here):
    score = {"s": "python -c 'print(1)' {run} {json} --at {data.shards} {seed} {row}"}
    a = plan.load(write(here, scores=score, overrides=["data.shards=my shards"], seeds=[5]))
    words = commands.steps(a, a.trials[0])[1].command
    run = "runs/given/base-5"
    assert words[0] == sys.executable
    assert words[1:] == ["-c", "print(1)", run, f"{run}/scores/s.json", "--at", "my shards", "5", "base"]


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "configs").glob("ablation*.yaml")))
def test_shipped_ablations_are_right(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    a = plan.load(Path("configs") / name)
    assert len(a.seeds) >= 1
    assert all(t.settings.train.kimg == a.trials[0].settings.train.kimg for t in a.trials)


# ---- folders as a run leaves them


def pretend(a, trial, value, seconds=10.0, error=()):
    """Files of a run, made without one: checkpoint, log, score and pictures."""
    rng = random.Random(trial.name)
    folder = trial.folder
    point = folder / "checkpoints" / "000000009"
    point.mkdir(parents=True, exist_ok=True)
    reached = trial.settings.train.kimg * (0.3 if error else 1)
    (point / "model.json").write_text(json.dumps({"kimg": reached}))
    (folder / "config.yaml").write_text(config.to_yaml(trial.settings))
    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(1, 41):
            line = {
                "step": i,
                "kimg": reached * i / 40,
                "seconds_per_kimg": seconds * (9 if i == 1 else 1 + rng.random() / 50),
            }
            line |= {"memory_gb": 1.5, "D/adversarial": 1.4 * math.exp(-i / 30) + rng.random() / 10, "ada_p": 0.0}
            line |= {"G/adversarial": 0.8 + i / 40 + rng.random() / 5, "D/r1": rng.random() / 100}
            if trial.settings.loss["img_txt_d"]["weight"]:
                line["G/img_txt_d"] = 2.1 - i / 40 + rng.random() / 5
            file.write(json.dumps(line) + "\n")
        file.write('{"step": 41, "ki')
    if error:
        results.note(trial, commands.steps(a, trial)[0], 30, list(error))
        return
    for step in commands.steps(a, trial):
        if step.name == trials.PICTURES:
            (folder / "pictures").mkdir(exist_ok=True)
            for i in range(len(a.prompts)):
                for k in range(a.pictures):
                    colour = [int(rng.random() * 255) for _ in range(3)]
                    Image.new("RGB", (32, 32), tuple(colour)).save(folder / "pictures" / f"{i:04d}-x-seed{k}.png")
        elif step.name != trials.TRAIN:
            file = trials.score_file(trial, step.name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"shares": {"both": value}, "distance": 100 - 50 * value, "text": "x"}))
        results.note(trial, step, 60, [])


@pytest.fixture
def pretended(here, tiny_shards):
    """Four rows × three seeds: one row better than the base, one worse, one failed on its second seed."""
    rows = {
        "base": ["loss.img_txt_d.weight=0"],
        "helps": ["loss.img_txt_d.weight=1"],
        "hurts": ["loss.r1.gamma=9", "model.width=0.5"],
        "odd": ["loss.r1.gamma=5"],
    }
    score = {"command": "true {json}", "higher": ["shares/both"], "lower": ["distance"]}
    path = write(
        here, name="demo", rows=rows, seeds=[0, 1, 2], scores={"probe": score},
        prompts=["a <b>red</b> bus & more", "a zebra"],
        overrides=["train.kimg=4", "optim.g.lr=0.004", f"data.shards={tiny_shards}", "model.resolution=16"],
    )  # fmt: skip
    a = plan.load(path)
    values = {
        "base": (0.5, 0.52, 0.54),
        "helps": (0.7, 0.71, 0.72),
        "hurts": (0.3, 0.31, 0.32),
        "odd": (0.53, 0.50, 0.56),
    }
    for trial in a.trials:
        bad = trial.name == "odd-1"
        error = ["Traceback <most recent>", "error: step 9: not finite"] if bad else ()
        pretend(a, trial, values[trial.row.name][trial.seed], 13 if trial.row.name == "helps" else 10, error)
    return a


def test_what_is_still_to_do(pretended):
    a = pretended
    base, failed = a.trials[0], next(t for t in a.trials if t.name == "odd-1")
    names = lambda trial: [step.name for step in results.missing(a, trial)]
    assert names(base) == []
    assert names(failed) == ["training", "probe", "pictures"]
    assert results.changed(base) == []
    # Another score command is one score to do again; more prompts, the pictures.
    again = plan.load(write(Path(), **yaml.safe_load(a.path.read_text()) | {"scores": {"probe": "true {json} x"}}))
    assert [step.name for step in results.missing(again, again.trials[0])] == ["probe"]
    a.prompts.append("a boat")
    assert names(base) == ["pictures"]
    # Trained further, by hand: scores are of another model.
    (base.folder / "checkpoints" / "000000009" / "model.json").write_text('{"kimg": 5}')
    assert names(base) == ["probe", "pictures"]
    # Another configuration is neither.
    more = plan.load(a.path, ["train.kimg=8", "optim.g.lr=0.1"])
    assert results.changed(more.trials[0]) == ["optim.g.lr=0.004, now 0.1", "train.kimg=4.0, now 8.0"]
    shown = results.outcome(more, more.trials[0])
    assert (shown.state, shown.scores, shown.curves) == ("other settings", {}, {})


def test_scores_that_are_not_there_are_told(pretended):
    trial = pretended.trials[0]
    with pytest.raises(UserError, match=r"no shares/bath in .*'shares/both'"):
        results.read_scores(trial, trials.Score("probe", "", ("shares/bath",)))
    with pytest.raises(UserError, match="wrote no"):
        results.read_scores(trial, trials.Score("other", ""))
    trials.score_file(trial, "probe").write_text("[1]")
    with pytest.raises(UserError, match="not a JSON object"):
        results.read_scores(trial, trials.Score("probe", ""))


def test_seconds_leave_out_the_start():
    lines = [{"seconds_per_kimg": s} for s in (90.0, 10.0, 12.0, 11.0, 50.0)]
    assert results.seconds_per_kimg(lines) == 11.5
    assert results.seconds_per_kimg(lines[:1]) == 90
    assert results.seconds_per_kimg([]) is None


# ---- the sums of the page


def test_compare_by_hand():
    base = {0: 1.0, 1: 2.0, 2: 3.0}  # spread 1
    up = summary.compare({0: 3.0, 1: 4.5, 2: 5.0}, base, 1)
    assert up.mean == pytest.approx(12.5 / 3)
    assert up.spread == pytest.approx(
        math.sqrt(((3 - 12.5 / 3) ** 2 + (4.5 - 12.5 / 3) ** 2 + (5 - 12.5 / 3) ** 2) / 2)
    )
    assert up.difference == pytest.approx(12.5 / 3 - 2)
    assert up.mark == "better"
    assert summary.compare({0: 3.0, 1: 4.5, 2: 5.0}, base, -1).mark == "worse"
    assert summary.compare({0: 3.0, 1: 4.5, 2: 5.0}, base, 0).mark == "differs"
    assert summary.compare({0: 2.0, 1: 3.0, 2: 4.0}, base, 1).mark == "within"  # a difference of exactly the spread
    assert summary.compare({2: 9.0}, base, 1).mark == ""  # one seed in common
    assert summary.compare({2: 9.0}, base, 1).difference == 6  # against that seed, not against the mean
    assert summary.compare({7: 9.0}, base, 1).difference is None
    assert summary.compare({}, base, 1) is None


@given(
    st.dictionaries(st.integers(0, 5), st.floats(-9, 9), min_size=2),
    st.dictionaries(st.integers(0, 5), st.floats(-9, 9)),
)
def test_compare_turns_with_the_direction(mine, base):
    up, down = summary.compare(mine, base, 1), summary.compare(mine, base, -1)
    other = {"better": "worse", "worse": "better"}
    assert other.get(up.mark, up.mark) == down.mark
    assert min(mine.values()) - 1e-9 <= up.mean <= max(mine.values()) + 1e-9


def test_average_of_curves():
    assert chart.average([[(1, 2.0), (2, 4.0)], [(1, 4.0), (2, 8.0)]]) == [(1, 3.0), (2, 6.0)]
    many = chart.average([[(x, float(x)) for x in range(1000)]], points=10)
    assert len(many) == 10
    assert many[0] == (49.5, 49.5)
    assert chart.average([]) == []


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e4))
def test_ticks_are_few_and_round(low, size):
    ticks = chart.ticks(low, low + size)
    assert 2 <= len(ticks) <= 6
    close = 1e-6 * size + 1e-9 * abs(low)
    assert ticks[0] <= low + close
    assert ticks[-1] >= low + size - close


def test_a_panel_is_a_part_of_the_page():
    lines = [("base", "currentColor", [(1.0, 2.0), (2.0, 3.0)]), ("a", "#4e79a7", [(1.0, 2.5)])]
    svg = chart.panel("D/<loss> & more", lines, 2.0)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "D/<loss> & more over kimg"
    assert {"width", "height"}.isdisjoint(root.attrib)  # as wide as its place
    titles = [g[0].text for g in root.iter(f"{{{chart.SVG}}}g") if g.get("class") == "line"]
    assert titles == ["a", "base"]  # the base on top
    ids = {e.get("id") for e in root.iter()} - {None}
    assert ids == set(re.findall(r"(?:href=\"|url\()#([\w-]+)", svg))  # no other, which might stand twice on the page
    assert "stroke: currentColor" in svg
    assert "fill: var(--soft)" in svg
    assert not any(colour in svg for colour in chart.THEME)
    assert chart.panel("D/<loss> & more", lines, 2.0) == svg


def test_numbers():
    assert summary.number(-0.126, 2) == "−0.13"
    assert summary.number(0.126, 2, sign=True) == "+0.13"
    assert summary.number(-0.001, 2, sign=True) == "±0.00"
    assert summary.number(-103674627.9, 0, sign=True) == "−1.037e8"
    assert summary.number(None, 2) == "–"


def test_nearest_captions():
    class Samples:
        source = "x"
        texts = (["A train on the tracks."], ["a red bus", "The red bus in the street."], ["a blue bus"])
        __len__ = lambda self: 3
        look_up = lambda self, i: SimpleNamespace(captions=self.texts[i])

    asked = ["a bus that is blue", "red bus in street"]
    assert pictures._nearest(Samples(), asked) == (asked, [("a blue bus", 2), ("The red bus in the street.", 1)])
    prompts, found = pictures._nearest(Samples(), [])
    assert prompts == ["A train on the tracks.", "a red bus", "a blue bus"]
    assert [i for _, i in found] == [0, 1, 2]


# ---- the page


def test_tables(pretended):
    report.Page(pretended, "python x").write({})
    folder = pretended.folder
    rows = {r["row"]: r for r in csv.DictReader(io.StringIO((folder / "report.csv").read_text()))}
    assert list(rows) == ["base", "helps", "hurts", "odd"]
    assert float(rows["helps"]["probe shares/both mean"]) == pytest.approx(0.71)
    assert float(rows["helps"]["probe shares/both difference"]) == pytest.approx(0.19)
    marks = [rows[name]["probe shares/both mark"] for name in rows]
    assert marks == ["", "better", "worse", "within"]
    assert [rows[name]["probe distance mark"] for name in rows] == marks
    assert float(rows["helps"]["ratio"]) == pytest.approx(1.3, rel=0.02)
    assert (rows["odd"]["finished"], rows["odd"]["failed"], rows["odd"]["probe distance seeds"]) == ("2", "1", "2")
    runs = list(csv.DictReader(io.StringIO((folder / "runs.csv").read_text())))
    assert len(runs) == 12
    (bad,) = [r for r in runs if r["state"] == "failed"]
    assert (bad["row"], bad["seed"], bad["error"]) == ("odd", "1", "error: step 9: not finite")
    assert float(bad["kimg"]) == pytest.approx(1.2)


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_the_page_in_a_browser(pretended, tmp_path):
    page = report.Page(pretended, "python scripts/ablate.py x.yaml")
    page.write({"hurts-2": "running: training"})
    source = page.html.read_text()
    assert 'http-equiv="refresh"' in source
    page.write({})
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", "--disable-component-update", f"--user-data-dir={tmp_path / 'browser'}"]
    flags += ["--enable-logging=stderr", "--dump-dom", page.html.resolve().as_uri()]
    ran = subprocess.run([BROWSER, *flags], capture_output=True, text=True, timeout=120, check=True)
    # The page forbids itself every request and every script; one that was tried is an error in the console.
    assert "default-src 'none'" in ran.stdout
    assert ":CONSOLE" not in ran.stderr, ran.stderr
    assert set(re.findall(r"""(?:src|href|srcset|url)\s*[=(]\s*["']?([a-z]+):""", ran.stdout)) == {"data"}
    assert 'http-equiv="refresh"' not in ran.stdout
    text = re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", ran.stdout, flags=re.DOTALL))
    for said in (
        "11 of 12 runs finished",
        "1 failed",
        "0.710",
        "± 0.010",
        "▲ +0.190",
        "▼ −0.210",
        "helped: helps +0.190",
        "hurt: hurts −0.210",
        "no clear difference: odd",
        "error: step 9: not finite",
        "Traceback &lt;most recent&gt;",
        "a &lt;b&gt;red&lt;/b&gt; bus &amp; more",
        "G/img_txt_d",
        "loss.r1.gamma",
        "python scripts/ablate.py x.yaml",
    ):
        assert said in text.replace("\u200b", ""), said
    assert ran.stdout.count("<img ") == 2 * (1 + 4)  # prompts × (real and rows)
    assert ran.stdout.count("<strong>0.710</strong>") == 1  # the best, and only that, is bold
    assert "<strong>0.520</strong>" not in ran.stdout
    assert ran.stdout.count('<g class="line"><title>helps</title>') == 2 + 4  # scores and curves
    assert ran.stdout.count('<g class="line">') >= 3 * 4 + 2 * 4
    assert "<script" not in ran.stdout


HIT = "document.title='hit'"
HOSTILE = f"""</script><script>{HIT}</script><img src=x onerror="{HIT}">'" onload='x' &amp;"""


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_words_of_prompts_scores_and_errors_stay_words(here, tiny_shards, tmp_path):
    """As a browser reads the page; Chromium too where there is one."""
    score = {"command": "true {json}", "higher": [HOSTILE]}
    path = write(
        here, name="demo", rows={"base": [], "other": []}, seeds=[0], scores={"probe": score}, prompts=[HOSTILE],
        overrides=["train.kimg=4", "optim.g.lr=0.004", f"data.shards={tiny_shards}", "model.resolution=16"],
    )  # fmt: skip
    a = plan.load(path)
    for trial in a.trials:
        pretend(a, trial, 0.5, error=[HOSTILE] if trial.row.name == "other" else ())
        lines = [{"step": k, "kimg": k, f"D/{HOSTILE}": 0.1 * k, "seconds_per_kimg": 1} for k in range(1, 5)]
        (trial.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        file = results.score_file(trial, "probe")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({HOSTILE: 0.5}))
    page = report.Page(a, HOSTILE)
    page.write({})
    found = Elements(page.html.read_text()).found
    assert not [tag for tag, _ in found if tag in ("script", "iframe", "object", "embed", "link", "base", "form")]
    assert not [key for _, attributes in found for key in attributes if key.startswith("on")]
    assert all(attributes["src"].startswith("data:") for tag, attributes in found if tag == "img")
    assert page.html.read_text().count("document.title=") >= 3
    if not BROWSER:
        pytest.skip("no Chromium on this machine: only the HTML was parsed")
    free = page.html.read_text().replace("default-src 'none'; ", "")  # nor by the page's own policy alone
    page.html.write_text(free)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", page.html.resolve().as_uri()]
    ran = subprocess.run([BROWSER, *flags], capture_output=True, text=True, timeout=120, check=True)
    assert "<title>Ablation demo</title>" in ran.stdout


# ---- processes


TRAP = """
import signal, sys, time
def leave(number, frame):
    print("checkpoint written", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(60)
"""


def job_of(folder, *commands):
    trial = SimpleNamespace(folder=folder, settings=SimpleNamespace(train=SimpleNamespace(kimg=1)), name="x")
    folder.mkdir()
    queue = deque(trials.Step(trials.PICTURES, command) for command in commands)
    return jobs.Job(trial, queue, slots.Slot(), {})


def drive(job, until=lambda: False):
    deadline = time.monotonic() + 60
    while not job.advance():
        assert time.monotonic() < deadline
        if until():
            return
        time.sleep(0.02)


def test_stopping_waits_for_the_training_though_its_launcher_dies_at_once(tmp_path):
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-u', '-c', {TRAP!r}])"
    job = job_of(tmp_path / "run", [sys.executable, "-c", launcher])
    drive(job, lambda: b"ready" in job.output)
    job.stop(1)
    drive(job)
    assert b"checkpoint written" in (tmp_path / "run" / "ablation.log").read_bytes()
    assert not results.notes(job.trial)  # neither done nor failed


def test_a_second_signal_ends_at_once(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    job = job_of(tmp_path / "run", [sys.executable, "-c", stubborn])
    drive(job, lambda: b"ready" in job.output)
    job.stop(1)
    job.stop(2)
    drive(job)


def test_a_failed_command_leaves_its_last_lines_and_the_next_goes_on(tmp_path):
    fails = "print('a 5%|#  | 1/20 [00:01<00:20, 1.0it/s]'); print('error: no luck'); raise SystemExit(3)"
    job = job_of(tmp_path / "run", [sys.executable, "-c", fails], [sys.executable, "-c", "print('next')"])
    job.steps[1].name = "second"
    job.scores["second"] = trials.Score("second", "")
    drive(job)
    assert results.notes(job.trial)["pictures"]["error"] == ["error: no luck"]
    assert results.notes(job.trial)["second"]["error"] == [
        f"score second: the command wrote no {tmp_path}/run/scores/second.json"
    ]


def test_devices_are_shared_out(monkeypatch):
    assert [s.devices for s in slots.share(None, "0,3", 1)] == ["0", "3"]
    assert [s.devices for s in slots.share(None, "0,1,2,3,4", 2)] == ["0,1", "2,3"]
    assert [s.devices for s in slots.share(3, "0,1", 1)] == ["0", "1", "0"]
    with pytest.raises(UserError, match="processes=2"):
        slots.share(None, "0", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(slots.os, "sched_getaffinity", lambda pid: {0, 1, 2, 5})
    assert [s.cores for s in slots.share(2, None, 1)] == [{0, 2}, {1, 5}]
    for wrong in (0, 5):
        with pytest.raises(UserError, match=f"--jobs {wrong}"):
            slots.share(wrong, None, 1)


# ---- the command


def call(module, *arguments):
    """The exit status of the command, run in this process."""
    try:
        module.main([str(a) for a in arguments])
    except SystemExit as left:
        return left.code
    return 0


def test_an_ablation_from_the_command_to_the_page_and_again(here, tiny_shards, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    (here / "score.py").write_text(SCORE % 0.25)
    values = {
        "overrides": [*TINY, f"data.shards={tiny_shards}"],
        "rows": {"good": [], "bad": ["data.shards=nowhere"]},
        "prompts": ["a red bus"],
        "scores": {"s": {"command": "python score.py {json}", "higher": ["shares/both"]}},
        "reference": str(tiny_shards),
    }
    path, module = write(here, **values), script()
    assert call(module, path, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2 of 2 runs to do" in said
    assert "accelerate" in said
    assert not (here / "runs").exists()

    assert call(module, path) == 1
    said = capsys.readouterr().out
    assert "[1/2] good-0: finished" in said
    assert "bad-0: failed: error: data.shards" in said
    assert "failed: bad" in said
    run = here / "runs" / "given" / "good-0"
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert config.load(run / "config.yaml").seed == 0
    page = (here / "runs" / "given" / "report.html").read_text()
    assert "0.250" in page
    assert "nowhere" in page
    assert page.count("data:image/png") == 2  # a real picture and the good row's

    # Once more: nothing is left of the good one; a score of another name is all that --only it takes.
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert call(module, path, "--only", "good") == 0
    assert "1 finished before" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before

    # A changed row is refused, and nothing of it is lost.
    with pytest.raises(UserError, match=r"row good was trained with train.kimg=0.008, now 0.016.*--redo good"):
        module.main([str(path), "train.kimg=0.016", "--only", "good"])
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before
    for wrong, text in ((("--only", "goood"), "'good'"), (("--seeds", "x"), "--seeds x"), (("--redo", "b"), "'bad'")):
        with pytest.raises(UserError, match=text):
            module.main([str(path), *wrong])
