"""Scores side by side: for the terminal, as tables of a paper that others' parsers read, and as figures."""

import csv
import importlib.util
import io
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from t2i.errors import UserError
from t2i.metrics import compare, paper

ROOT = Path(__file__).parents[1]


def command(*arguments):
    spec = importlib.util.spec_from_file_location("score_script", ROOT / "scripts" / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(a) for a in arguments])


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.size[0]


def write(path: Path, scores, intervals, **more):
    """A file as score.py writes them."""
    protocol = {
        "resolution": 64, "samples": 500, "seed": 0, "truncation": 1.0, "noise": "const", "encoding": "lossless",
        "reference": "abcd", "reference_split": "scenes", "reference_count": 1000, "resize": "crop", "resized": "no",
        "captions": "1234", "clip": "w", "inception": "i",
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    subject = {"model": f"runs/{path.stem}", "kimg": 3.0}
    whole = {"format": 2, "scores": scores, "intervals": intervals, "protocol": protocol | more, "subject": subject}
    path.write_text(json.dumps(whole | {"judges": {"clip": "ViT_B"}}))
    return path


@pytest.fixture
def two(tmp_path):
    """FID of the second is better beyond doubt; of CLIP score, whose intervals meet, neither is; and an odd name."""
    a = write(
        tmp_path / "plain_a.json", {"fid": 30.0, "clip_score": 0.31, "cmmd_bias": 0.02, "recall": 0.5},
        {"fid": [29.0, 31.0], "clip_score": [0.30, 0.32]},
    )  # fmt: skip
    b = write(
        tmp_path / "ours|50%_&#$~^{}\\.json", {"fid": 21.53, "clip_score": 0.315, "cmmd_bias": 0.01, "recall": 0.4},
        {"fid": [20.0, 22.0], "clip_score": [0.305, 0.325]},
    )  # fmt: skip
    return a, b


def test_the_best_is_marked_only_where_the_intervals_lie_apart(two):
    c = compare.gather(two)
    assert {s: c.best(s) for s in c.scores} == {"fid": 1, "clip_score": None, "cmmd_bias": None, "recall": None}
    row = next(line for line in compare.text(c).splitlines() if line.startswith("fid"))
    assert row.split() == ["fid", "30", "21.53*", "lower"]


def test_best_of_higher_scores_and_of_one_system(tmp_path):
    a = write(tmp_path / "a.json", {"clip_score": 0.2, "fid": 5.0}, {"clip_score": [0.19, 0.21], "fid": [4, 6]})
    b = write(tmp_path / "b.json", {"clip_score": 0.4}, {"clip_score": [0.39, 0.41]})
    c = compare.gather([a, b])
    assert (c.best("clip_score"), c.best("fid")) == (1, None)


@pytest.mark.parametrize(
    ("value", "interval", "said"),
    [
        (21.534, (20.5, 22.57), "21.5 ± 1.0"),
        (0.7493, (0.7444, 0.7542), "0.7493 ± 0.0049"),
        (0.98, (0.95, 0.99), "0.980 [0.950, 0.990]"),
        (12345.0, (12000.0, 12690.0), "12345 ± 345"),
        (21.534, None, "21.53"),
        (0.5, (0.5, 0.5), "0.5000 ± 0.0000"),
    ],
)
def test_values_have_the_digits_that_their_interval_allows(value, interval, said):
    assert paper.rounded(value, interval) == said


def test_csv_has_every_score_in_full(two, tmp_path):
    command("--compare", *two, "--out", tmp_path / "new" / "t.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "t.csv").read_text())))
    assert len(rows) == 8
    fid = next(r for r in rows if r["name"] == two[1].stem and r["score"] == "fid")
    assert (float(fid["value"]), float(fid["low"]), float(fid["high"])) == (21.53, 20, 22)
    assert (fid["better"], fid["best"], fid["samples"], fid["reference"]) == ("lower", "yes", "500", "abcd")
    assert next(r for r in rows if r["score"] == "recall")["low"] == ""
    assert {r["best"] for r in rows if r["score"] == "clip_score"} == {""}


def test_markdown_is_a_table_to_a_markdown_parser(two, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    command("--compare", *two, "--out", tmp_path / "t.md")
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    tokens = parser.parse((tmp_path / "t.md").read_text())
    cells, bold = [], []
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            cells.append("".join(t.content for t in token.children))
            bold.append(any(t.type == "strong_open" for t in token.children))
    assert cells[:4] == ["", "fid ↓", "clip_score ↑", "recall ↑"]
    assert cells[4:] == [
        "plain_a", "30.0 ± 1.0", "0.310 ± 0.010", "0.5",
        two[1].stem, "21.5 [20.0, 22.0]", "0.315 ± 0.010", "0.4",
    ]  # fmt: skip
    assert [c for c, b in zip(cells, bold) if b] == ["21.5 [20.0, 22.0]"]
    notes = "".join(t.content for t in tokens if t.type == "inline" and t.level == 1)
    for part in ("500 pictures of 64×64", "reference abcd (scenes), 1000 pictures", "seed 0", "ψ 1", "95 % intervals"):
        assert part in notes


def unescaped(latex: str) -> str:
    return re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[{}&%$#_\\]|\$[<>|]\$|\$\\\w+\$", "", latex)


def test_latex_is_plain_escaped_and_balanced(two, tmp_path):
    command("--compare", *two, "--out", tmp_path / "t.tex")
    whole = (tmp_path / "t.tex").read_text()
    assert whole.startswith("% needs no package\n")
    body = unescaped(whole.split("\n", 1)[1])
    assert not set("#$%_^~") & set(body), "a character with a meaning stands bare"
    assert body.count("{") == body.count("}")
    assert body.count("\\begin{") == body.count("\\end{") == 1
    rows = [line for line in whole.splitlines() if line.endswith(r" \\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    assert r"ours$|$50\%\_\&\#\$\textasciitilde{}\textasciicircum{}\{\}\textbackslash{}" in rows[2]
    assert r"\textbf{21.5 [20.0, 22.0]}" in rows[2]
    assert r"fid $\downarrow$" in rows[0]
    assert r"30.0 $\pm$ 1.0" in rows[1]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(two, tmp_path):
    body = paper.latex(compare.gather(two))
    (tmp_path / "t.tex").write_text("\\documentclass{article}\\begin{document}\n" + body + "\n\\end{document}\n")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_latex_says_what_it_needs(tmp_path):
    a, b = (write(tmp_path / f"{n}.json", {"fid": 3.0}, {}) for n in ("模型", "b"))
    assert paper.latex(compare.gather([a, b])).startswith("% has letters beyond Latin: compile with XeLaTeX")


def test_metrics_choose_and_the_unknown_are_refused(two, tmp_path):
    command("--compare", *two, "--metrics", "prdc,fid", "--out", tmp_path / "t.csv", tmp_path / "t.txt")
    assert {r["score"] for r in csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text()))} == {"fid", "recall"}
    assert "clip_score" not in (tmp_path / "t.txt").read_text()
    for wrong, said in (
        (("--metrics", "fido"), "--metrics fido: no such score in these files; .*did you mean 'fid'"),
        (("--out", tmp_path / "t.doc"), r"t\.doc: its ending must say what it is to be: \.txt, \.md, \.tex"),
        (("--axes", "fid"), "two scores with a comma"),
        (("--axes", "fid,ppl", "--out", tmp_path / "t.png"), "none of these files has both"),
    ):
        with pytest.raises(UserError, match=said):
            command("--compare", *two, *wrong)
    with pytest.raises(UserError, match="--out: only with --compare or --truncations"):
        command("--pictures", tmp_path, "--out", tmp_path / "t.md")


def test_what_is_not_comparable_is_told_in_the_footnote_and_nothing_is_best(two, tmp_path):
    other = write(tmp_path / "c.json", {"fid": 1.0}, {"fid": [0.9, 1.1]}, samples=100)
    with pytest.raises(UserError, match="samples: 500, 100"):
        command("--compare", two[0], other, "--out", tmp_path / "t.md")
    assert not (tmp_path / "t.md").exists()
    command("--compare", two[0], other, "--force", "--out", tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert "Not comparable in samples: 500, 100" in text
    assert "**" not in text


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [write(tmp_path / folder / "score.json", {"fid": 1.0}, {}) for folder in ("a", "b")]
    assert compare.gather(paths).names == ["a/score", "b/score"]
    assert compare.short_names([paths[0], paths[0]]) == ["score (1)", "score (2)"]


def test_figures_are_of_their_kind_and_the_same_for_the_same_scores(two, tmp_path):
    names = ("f.png", "f.pdf", "f.svg", "again.pdf", "again.svg")
    command("--compare", *two, "--out", *(tmp_path / n for n in names))
    assert width(tmp_path / "f.png") > 600
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / "f.svg").read_bytes()
    for kind in ("pdf", "svg"):
        assert (tmp_path / f"f.{kind}").read_bytes() == (tmp_path / f"again.{kind}").read_bytes()


def test_a_curve_goes_through_its_points_in_the_order_of_psi(tmp_path):
    from matplotlib.figure import Figure

    from t2i.metrics import figures

    points = {1.0: (0.30, 20.0), 0.7: (0.33, 25.0), 0.9: (0.32, 18.0)}
    files = []
    for psi, (clip, fid) in points.items():
        scores, intervals = {"clip_score": clip, "fid": fid}, {"clip_score": [clip - 0.01, clip + 0.01]}
        files.append(write(tmp_path / f"m-psi{psi}.json", scores, intervals, truncation=psi))
        whole = json.loads(files[-1].read_text())
        whole["subject"]["model"] = "runs/m"
        files[-1].write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"truncation: 1\.0, 0\.7, 0\.9"):
        command("--compare", *files)
    command("--compare", *files, "--axes", "clip_score,fid", "--out", tmp_path / "curve.png")
    assert width(tmp_path / "curve.png") > 600
    figure = Figure()
    figures.curve(figure, compare.gather(files, free={"truncation"}), "clip_score", "fid")
    (panel,) = figure.axes
    line = next(x for x in panel.lines if x.get_label() == "runs/m (3 kimg)")
    assert [list(map(float, v)) for v in line.get_data()] == [[0.33, 0.32, 0.30], [25, 18, 20]]
    assert [t.get_text() for t in panel.texts] == ["0.7", "0.9", "1"]
    bars = [list(x.get_xdata()) for x in panel.lines if x is not line]
    assert bars == [pytest.approx([c - 0.01, c + 0.01]) for c in (0.33, 0.32, 0.30)]
