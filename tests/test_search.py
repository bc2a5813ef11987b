"""The search: one budget, record and resumption, one process and two, on a tiny random StyleGAN2."""

import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from tiny_search import PROMPT, QUICK, brightness, make, read

from t2i.encoders.clip import load_clip
from t2i.errors import UserError
from t2i.model import load_model
from t2i.search import algorithms, report
from t2i.search.objectives import clip_similarity
from t2i.search.record import pack, unpack
from t2i.search.result import pareto
from t2i.search.run import search


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


# ---- the search


def test_search_beats_the_baseline_of_as_many_evaluations(model, tmp_path):
    settings = replace(QUICK, population=10, budget=200, held_out="scenes-clip-score")
    result = search(model, [PROMPT], settings, tmp_path, brightness)[0]
    assert result.found[0].score > result.baseline[0].score > result.plain["score"][0]
    assert result.spent == 200
    rows = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()][1:]
    by = [[r for r in rows if r.get("by") == name] for name in ("search", "baseline")]
    assert [len(b) for b in by] == [200, 200]
    assert [r["index"] for r in rows if "index" in r] == list(range(400))
    for name, found in zip(("search", "baseline"), (result.found, result.baseline)):
        mine = {r["index"]: r for r in rows if r.get("by") == name}
        assert found[0].score == max(r["score"] for r in mine.values()) == mine[found[0].index]["score"]
        np.testing.assert_array_equal(unpack(mine[found[0].index]["point"]), found[0].point)
    # What is reported is what the pictures are worth.
    image = result.pictures["found"][:1]
    assert float(brightness(image)) == pytest.approx(result.found[0].score, abs=1e-5)
    held_out = clip_similarity([load_clip("scenes-clip-score")], PROMPT)
    assert float(held_out(image)) == pytest.approx(result.found[0].held_out, abs=1e-5)
    assert math.isfinite(result.found[0].d)
    assert result.history[-1]["best"] == result.found[0].score
    assert result.history[-1]["held_out"] == pytest.approx(result.found[0].held_out, abs=1e-4)
    assert result.latents_alike < 0.9


@pytest.mark.parametrize("name", algorithms.known())
def test_killed_and_resumed_is_as_if_never_killed(model, tmp_path, name):
    settings = replace(QUICK, algorithm=name, space="z+truncation")
    objective = None if name in ("nsga2", "hybrid") else brightness
    whole = search(model, [PROMPT], settings, tmp_path / "whole", objective)[0]
    text = (tmp_path / "whole/record.jsonl").read_bytes()
    killed = tmp_path / "killed/record.jsonl"
    killed.parent.mkdir()
    lines = text.splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if b'"closes"' in line]
    cuts = [b"".join(lines[: ends[1] + 3]) + lines[ends[1] + 3][:20], lines[0][:10]]
    for kept in cuts if name == "sep_cma" else cuts[:1]:
        killed.write_bytes(kept)
        again = search(model, [PROMPT], settings, killed.parent, objective)[0]
        assert killed.read_bytes() == text
        assert [f.index for f in again.found] == [f.index for f in whole.found]
    evaluated = []
    done = search(model, [PROMPT], settings, killed.parent, objective, watch=lambda *_: evaluated.append(1))[0]
    assert len(evaluated) == len(ends)  # only read
    assert torch.equal(done.pictures["found"], whole.pictures["found"])


def test_another_search_is_not_resumed(model, tmp_path):
    search(model, [PROMPT], QUICK, tmp_path, brightness)
    with pytest.raises(UserError, match="holds a search with seed=0, not 1; choose another --out"):
        search(model, [PROMPT], replace(QUICK, seed=1), tmp_path, brightness)
    path = tmp_path / "record.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["point"] = pack(np.zeros(12))
    for row in rows:  # by whoever has made the digests so
        row.pop("sha256", None)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(UserError, match="generation 0 was made by other versions"):
        search(model, [PROMPT], QUICK, tmp_path, brightness)
    path.write_text("{}\nnot json\n")
    with pytest.raises(UserError, match="not a record"):
        search(model, [PROMPT], QUICK, tmp_path, brightness)


def test_stops(model, monkeypatch):
    settings = replace(QUICK, baseline=False)
    full = search(model, [PROMPT], settings, None, brightness)[0]
    assert full.stopped == "budget spent"
    target = full.history[1]["best"]
    reached = search(model, [PROMPT], replace(settings, target=target), None, brightness)[0]
    assert reached.stopped == "target reached"
    assert reached.spent == next(h["spent"] for h in full.history if h["best"] >= target)
    timed = search(model, [PROMPT], replace(settings, minutes=1e-9), None, brightness)[0]
    assert (timed.stopped, timed.generations) == ("time is up", 1)
    flat = replace(settings, algorithm="ga", budget=4000, population=500, batch=250, plateau=0.05)
    result = search(model, [PROMPT], flat, None, lambda images: 0 * brightness(images))[0]
    assert (result.stopped, result.spent) == ("plateau", 2000)  # never before 2,000 evaluations


def test_prompts_share_the_budget(model):
    """The half that gains least stops, what it leaves goes to the others; easy ones stop early."""
    prompts = ["a green train", "a red bus", "a blue boat", "a zebra"]
    settings = replace(QUICK, budget=48, baseline=False)
    results = search(model, prompts, settings, None, brightness)
    spent = sorted(r.spent for r in results)
    assert spent == [16, 16, 48, 112]  # a round of 64 among four, one among two, one for the last
    assert sum(spent) == 4 * 48
    assert sorted(r.stopped for r in results) == ["budget spent"] + ["others gained more"] * 3
    # A prompt's own search is the one it has alone.
    alone = search(model, prompts[1:2], settings, None, brightness)[0]
    together = results[1].history
    assert alone.history[: len(together)] == together[: len(alone.history)]
    easy = min(r.history[0]["best"] for r in results)
    all_easy = search(model, prompts, replace(settings, target=easy), None, brightness)
    assert [r.spent for r in all_easy] == [8] * 4


def test_scores_that_are_no_number_are_the_worst(model, tmp_path):
    middle = search(model, [PROMPT], QUICK, None, brightness)[0].plain["score"][0]

    def holes(images):
        x = brightness(images)
        return torch.where(x > middle, torch.nan, x)  # the best would be among them

    for name in ("sep_cma", "ga", "map_elites"):
        result = search(model, [PROMPT], replace(QUICK, algorithm=name), tmp_path / name, holes)[0]
        assert result.invalid > 0
        assert all(math.isfinite(f.score) for f in result.found + result.baseline)
        text = (tmp_path / name / "record.jsonl").read_text()
        assert "NaN" not in text
        assert '"score": null' in text
    with pytest.raises(UserError, match="no score of the first generation is a number"):
        search(model, [PROMPT], QUICK, None, lambda images: brightness(images) * torch.nan)


def test_best_of_n_is_the_baseline_of_the_others(model):
    both = [search(model, [PROMPT], replace(QUICK, algorithm=n), None, brightness)[0] for n in ("best_of_n", "ga")]
    assert both[0].found[0].score == both[1].baseline[0].score
    np.testing.assert_array_equal(both[0].found[0].point, both[1].baseline[0].point)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"algorithm": "sep_cmaes"}, "did you mean 'sep_cma'"),
        ({"population": 33}, "population=33: more than the budget of 32"),
        ({"population": 3}, "sep_cma needs 4 or more"),
        ({"population": 0}, "population=0: must be 1 or more"),
        ({"views": 0}, "views=0"),
        ({"target": math.nan}, "target=nan"),
        ({"minutes": 0.0}, "minutes=0.0"),
        ({"plateau": 1.5}, "plateau=1.5"),
        ({"space": "y"}, "starts with z or w"),
        ({"noise": "loud"}, "noise=loud"),
    ],
)
def test_settings_that_make_no_sense(changes, line):
    with pytest.raises(UserError, match=line) as error:
        replace(QUICK, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objective": "clip,d"}, "sep_cma takes 1; join them"),
        ({"algorithm": "nsga2", "objective": "clip"}, "nsga2 takes 2; separate two"),
        ({"objective": "clip+d"}, "holds no discriminator.safetensors"),
        ({"scorer": "open_clipp:x"}, "or name another CLIP with --scorer"),
        ({"held_out": "scenes-clip"}, "is optimised too"),
    ],
)
def test_searches_that_lack_something(tmp_path, changes, line):
    model = load_model(make(tmp_path, critic=False))
    with pytest.raises(UserError, match=line) as error:
        search(model, [PROMPT], replace(QUICK, **changes))
    assert "\n" not in str(error.value)


def test_nsga2_without_a_discriminator(tmp_path):
    said: list[str] = []
    model = load_model(make(tmp_path, critic=False))
    result = search(model, [PROMPT], replace(QUICK, algorithm="nsga2"), say=said.append)[0]
    assert any("no D score" in line for line in said)
    assert any("typical" in line for line in said)
    assert set(result.found[0].terms) == {"clip", "typical"}
    assert math.isnan(result.found[0].d)
    assert result.plain["score"] == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.5))  # in σ of plain samples


def test_pareto_by_hand():
    values = np.array([[1, 5], [2, 4], [2, 3], [3, 1], [0, 5], [np.nan, 9], [3, 1]])
    assert pareto(values).tolist() == [3, 1, 0]


def test_without_a_clip(tmp_path):
    """A discriminator is enough; with neither it is said what to name."""
    said: list[str] = []
    model, bare = load_model(make(tmp_path / "a")), load_model(make(tmp_path / "b", critic=False))
    model.config.encoders.clip = bare.config.encoders.clip = ""
    result = search(model, [PROMPT], QUICK, say=said.append)[0]
    assert set(result.found[0].terms) == {"d_text", "d_contrast"}
    assert any("no CLIP" in line for line in said)
    with pytest.raises(UserError, match=r"was trained without a CLIP .*--scorer"):
        search(model, [PROMPT], replace(QUICK, objective="clip"))
    with pytest.raises(UserError, match="neither a CLIP"):
        search(bare, [PROMPT], QUICK)


@pytest.mark.parametrize(("name", "file"), [("nsga2", "front-x.png"), ("map_elites", "archive-x.png")])
def test_front_and_archive(model, tmp_path, name, file):
    result = search(model, [PROMPT], replace(QUICK, algorithm=name))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        report.save([result], tmp_path, ["x"], {})
    assert read(tmp_path / file).shape[1] > 100
    if name == "nsga2":
        both = result.front.search
        front = both[result.front.front]
        assert both.shape == (32, 2)
        assert (np.diff(front[:, 0]) <= 0).all()
        assert not any((point > front).all(1).any() for point in both)
    else:
        cells = result.archive.cells
        assert len({tuple(c) for c in cells}) == len(cells) == len(result.archive.pictures)


# ---- several processes


def work(rank: int, folder: str, out: str, port: int) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ.update(where)
    torch.distributed.init_process_group("gloo")
    for name in ("sep_cma", "hybrid"):
        search(load_model(folder), [PROMPT, "a red bus"], replace(QUICK, algorithm=name), f"{out}/{name}")
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_find_what_one_finds(model, folder, tmp_path):
    """To the bit: the same micro-batches, whoever computes them."""
    mp.start_processes(work, (str(folder), str(tmp_path / "two"), 29000 + os.getpid() % 1000), 2, start_method="fork")
    for name in ("sep_cma", "hybrid"):
        search(model, [PROMPT, "a red bus"], replace(QUICK, algorithm=name), tmp_path / "one" / name)
        records = [(tmp_path / way / name / "record.jsonl").read_bytes() for way in ("one", "two")]
        assert records[0] == records[1]
