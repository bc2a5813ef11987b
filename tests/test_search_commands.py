"""The commands of the search."""

import importlib.util
import json
import re
import resource
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tiny_search import PROMPT, make, read

from t2i.errors import UserError
from t2i.interfaces import Latent
from t2i.model import load_model
from t2i.options import field_comments, flag, given
from t2i.pictures import to_uint8
from t2i.search import algorithms, comparison
from t2i.search.language import TERMS
from t2i.search.record import read_candidate, unpack
from t2i.search.settings import PRESETS, Settings, resolve

ROOT = Path(__file__).parents[1]


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_command(folder, tmp_path, capsys):
    main = script("generate").main
    out = tmp_path / "found"
    command = ["--prompt", PROMPT, "--search", "sep_cma", "--population", "8", "--generations", "4", "--top-k", "2",
               "--views", "2", "--checkpoint", str(folder), "--device", "cpu", "--out", str(out)]  # fmt: skip
    with warnings.catch_warnings():  # matplotlib's and its helpers' own
        warnings.simplefilter("ignore", DeprecationWarning)
        main(command)
    said = capsys.readouterr().out
    assert "32 evaluations and as many plain samples at about" in said
    for line in ("plain samples, mean", "best of 32 plain", "search, 1", "search, 2", "held out", "mean cosine"):
        assert line in said
    assert "of plain samples: optimised +" in said or "of plain samples: optimised -" in said
    assert read(out / "history.png").shape[1] > 500
    assert read(out / "grid.png").shape[1] == 2 * 258 - 2
    result = json.loads((out / "result.json").read_text())
    best = result["prompts"][0]["found"][0]
    about = json.loads((out / "best/0001-a-green-train-1.json").read_text())
    assert about["index"] == best["index"]
    assert {"norm", "truncation", "d", "held_out", "weights_sha256", "versions"} <= set(about)
    # Again: everything is there already.
    main(command)
    assert "goes on after 64 candidates" in capsys.readouterr().out
    # Any candidate can be drawn again, and the best is the picture that was saved.
    main(["--replay", str(out / "record.jsonl"), "--index", str(best["index"]), "--device", "cpu"])
    assert "'a green train', search, generation" in capsys.readouterr().out
    replayed = read(out / f"replay-{best['index']}.png")
    assert (replayed == read(out / "best/0001-a-green-train-1.png")).all()
    head, row = read_candidate(out / "record.jsonl", 9)  # a plain sample
    assert row["by"] == "baseline"
    main(["--replay", str(out / "record.jsonl"), "--index", "9", "--device", "cpu", "--out", str(tmp_path / "9.png")])
    z = torch.from_numpy(unpack(row["point"]))[None]
    model = load_model(folder)
    drawn = model.generator(Latent(z), model.text_encoder([head["prompts"][0]]), noise="const").image.clamp(-1, 1)
    assert (read(tmp_path / "9.png") == to_uint8(drawn)[0].numpy()).all()
    for more, line in (
        (["--index", "999"], "has candidates 0 to 63"),
        ([], "needs --index"),
        (["--index", "1", "--checkpoint", "scenes-stylegan2"], "not the weights of the search"),
    ):
        with pytest.raises(UserError, match=line):
            main(["--replay", str(out / "record.jsonl"), *more, "--device", "cpu"])
    with pytest.raises(UserError, match="not a record"):
        main(["--replay", str(out / "result.json"), "--index", "1"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--search", "sepcma"], "did you mean 'sep_cma'"),
        (["--search", "ga", "--population", "100", "--budget", "50"], "more than the budget of 50"),
        (["--search", "ga", "--preset", "fast"], "known: 1000x100"),
        (["--search", "ga", "--preset", "quick", "--budget", "50"], "--preset quick: leave it out"),
        (["--search", "ga", "--population", "10", "--generations", "3", "--budget", "50"], "two of the three"),
        (["--search", "ga", "--generations", "0"], "generations"),
        (["--search", "ga", "--out", "x.png"], "give a folder"),
        (["--budget", "50"], "--budget: only with --search"),
        (["--search", "ga", "--space", "y"], "starts with z or w"),
        (["--search", "ga", "--objective", "clop"], "did you mean 'clip'"),
        (["--search", "ga", "--objective", "clip,d"], "ga takes 1; join them"),
        (["--search", "nsga2", "--objective", "clip"], "nsga2 takes 2; separate two"),
        (["--search", "ga", "--noise", "rondom"], "did you mean 'random'"),
        (["--search", "ga", "--count", "2"], "--count: not with --search"),
        (["--search", "ga", "--singles", "x"], "--singles: not with --search"),
        (["--search", "ga", "--populatoin", "5"], "unrecognized arguments: --populatoin"),
        (["--search", "ga", "--population", "five"], "invalid int value: 'five'"),
        (["--index", "3"], "--index: only with --replay"),
        (["--replay", "record.jsonl", "--index", "3"], "--prompt: not with --replay"),
    ],
)
def test_commands_that_make_no_sense(folder, arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        script("generate").main(["--prompt", PROMPT, "--checkpoint", str(folder), "--device", "cpu", *arguments])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_presets():
    generate = script("generate")

    def parsed(*words: str) -> tuple[int, int]:
        options = generate.parser().parse_args(["--search", "ga", *words])
        found = resolve(Settings(**given(options, Settings)))
        return found.population, found.budget

    assert parsed() == (50, 1000)
    assert parsed("--preset", "1000x100") == (1000, 100_000)
    assert parsed("--population", "100", "--generations", "1000") == (100, 100_000)
    assert parsed("--budget", "500") == (50, 500)
    assert parsed("--budget", "500", "--generations", "5") == (100, 500)


def test_defaults_that_depend_on_others():
    settings = resolve(Settings(algorithm="ga"))
    assert (settings.batch, settings.plateau, settings.preset, settings.generations) == (16, 0, None, None)
    assert resolve(settings) == settings
    assert resolve(Settings(), prompts=2, accelerator=True) == replace(resolve(Settings()), batch=64, plateau=0.01)
    kept = Settings(batch=3, plateau=0.5, preset="200x500")
    assert resolve(kept, 2, True) == replace(kept, preset=None, population=200, budget=100_000)


def test_table(folder, tmp_path, capsys):
    table = script("search_table")
    assert [comparison.shape(s, 2000) for s in comparison.SHAPES] == [(14, 142), (28, 71), (71, 28), (141, 14)]
    (tmp_path / "captions.txt").write_text("a green train\na red bus\n")
    command = ["--checkpoint", str(folder), "--file", str(tmp_path / "captions.txt"), "--budget", "40", "--views", "1",
               "--seeds", "1", "--algorithms", "ga", "--out", str(tmp_path / "table"), "--device", "cpu"]  # fmt: skip
    with pytest.raises(UserError, match=r"--settings 200x400: known: .* did you mean '200x500'"):
        table.main([*command, "--settings", "200x400"])
    table.main([*command, "--minutes", "0"])
    assert "0 runs" in capsys.readouterr().out
    table.main(command)
    rows = [json.loads(line) for line in (tmp_path / "table/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (1 + 4)
    text = (tmp_path / "table/table.md").read_text()
    assert "| plain sampling | | 2 |" in text
    assert "| `ga` | 4×10 (200x500) | 2 |" in text
    table.main(command)  # nothing is run twice
    assert len((tmp_path / "table/rows.jsonl").read_text().splitlines()) == len(rows)
    capsys.readouterr()
    table.main(["--overhead", "--population", "8", "--dim", "4", "--algorithms", "sep_cma,adam"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["sep_cma", "adam"]


# ---- options


def explained(text: str) -> list[tuple[str, str]]:
    """Each option that --help explains, and how."""
    found = re.findall(r"^  (--[\w-]+)(.*?)(?=^  -|^$|\Z)", text, re.M | re.S)
    return [(option, " ".join(about.split())) for option, about in found]


@pytest.mark.parametrize(("name", "left_out"), [("generate", set()), ("search_table", comparison.VARIED)])
def test_help_explains_each_setting_once(name, left_out):
    module = script(name)
    text, comments = module.parser().format_help(), field_comments(Settings)
    entries = explained(text)
    assert len(entries) == len(dict(entries))
    defaults = getattr(module, "DEFAULTS", {})
    for field in fields(Settings):
        comment, default = comments[field.name], defaults.get(field.name, field.default)
        assert len(comment) > 10
        if field.name in left_out:
            assert comment not in " ".join(text.split())
            continue
        about = dict(entries)["--search" if field.name == "algorithm" else flag(field.name)]
        assert comment in about
        if field.name != "algorithm" and default not in (None, ""):  # without --search nothing is searched
            assert about.endswith(f" ({'on' if default is True else default})")
        elif default is None and field.name not in ("target", "minutes", "budget"):
            assert "(" in comment or ":" in comment, "a default that depends on others is told in the comment"


def test_help_names_every_choice():
    text = script("generate").parser().format_help()
    for name in [*algorithms.known(), *TERMS, *PRESETS]:
        assert re.search(rf"^  {name} +\S", text, re.M), name


def heavy(*words: str, code: str) -> subprocess.CompletedProcess:
    """A script as typed, which then says what it imported."""
    program = f"""
import atexit, sys, runpy
sys.argv = {list(words)!r}
atexit.register(lambda: print("IMPORTED", [m for m in {code} if m in sys.modules]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["generate", "search_table"])
def test_help_waits_for_nothing(name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = heavy(str(ROOT / "scripts" / f"{name}.py"), "--help", code="('torch', 'numpy', 'PIL', 'cma', 'pymoo')")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--search adma --prompt x", "did you mean 'adam'"),
        ("--search adam --prompt x --population 100 --budget 50", "more than the budget of 50"),
        ("--search adam --prompt x --space q", "starts with z or w"),
        ("--search adam --prompt x --objective clop", "did you mean 'clip'"),
        ("--search adam --prompt x --out x.png", "give a folder"),
        ("--search adam", "no prompt"),
        ("--prompt x --out x.jpg", "ends in .png"),
        ("--prompt x --count 0", "count=0"),
        ("--prompt x --target 1", "--target: only with --search"),
        ("--prompt x --nosie random", "unrecognized arguments: --nosie"),
        ("--replay nowhere.jsonl --index 1", "nowhere.jsonl: No such file"),
        ("--replay nowhere.jsonl", "needs --index"),
    ],
)
def test_mistakes_are_told_at_once(words, line):
    done = heavy(str(ROOT / "scripts/generate.py"), *words.split(), code="('torch',)")
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == "IMPORTED []\n"


@pytest.mark.parametrize(
    ("words", "line"), [("--settings 9x9", "known: 1000x100"), ("--algorithms ga,adma", "did you mean 'adam'"),
                        ("--seeds 0", "--seeds 0"), ("--space q", "starts with z or w"), ("--budget 0", "--budget 0")]
)  # fmt: skip
def test_mistakes_of_the_table_are_told_at_once(words, line):
    done = heavy(str(ROOT / "scripts/search_table.py"), *words.split(), code="('torch',)")
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "IMPORTED []\n"
