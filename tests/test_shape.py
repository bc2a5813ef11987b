"""Shape has a number: what it is made of, and that it tells scribbles from shapes when shown twenty of each."""

import math

import pytest
import torch
from test_score import command

from t2i.errors import UserError
from t2i.metrics import kid, shape, shape_kd
from t2i.metrics.networks import Settings, shapes
from t2i.model import load_model
from t2i.probes import scenes, standins
from t2i.probes.classifier import floats
from t2i.rng import Rng

needs_lite2 = pytest.mark.skipif(
    shapes.missing(Settings(scenes=True)) is not None, reason="the extra t2i[pretrained] is not installed"
)


def at(*degrees):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_shape_by_hand():
    """Buses at 0 to 3°, a kite at 20° and three at 90°; lengths say nothing."""
    drawn, objects = at(0, 1, 2, 3, 20, 90, 91, 92), ["bus"] * 4 + ["kite"] * 4
    seen = torch.tensor([True, True, True, False, True])
    asked = ["bus", "bus", "kite", "bus", None]  # of the last nothing was asked
    found = shape.compute(3 * at(1, 15, 85, 1, 1), seen, asked, drawn, objects)["shape"]
    assert found.tolist() == [1, 0, 1, 0]  # 15° has the kite at 20° among its three; of the fourth nothing is seen
    with pytest.raises(UserError, match="say no object"):
        shape.compute(at(1), seen[:1], [None], drawn, objects)


def test_shape_kd_is_the_unbiased_estimate_of_sets_of_any_sizes():
    from sklearn.metrics.pairwise import polynomial_kernel

    draw = lambda seed, n: torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, y = draw(0, 20) + 0.4, draw(1, 50)
    k = lambda a, b: torch.from_numpy(polynomial_kernel(a.numpy(), b.numpy(), degree=3, gamma=1 / 6, coef0=1))
    off = lambda a: float(k(a, a).sum() - k(a, a).trace()) / (len(a) * (len(a) - 1))
    found = shape_kd.compute(x, y)
    assert found.value == pytest.approx(off(x) + off(y) - 2 * float(k(x, y).mean()))
    assert found.interval[0] < found.value < found.interval[1]
    assert shape_kd.compute(x, y[:20]).value == pytest.approx(kid.mmd(x, y[:20]))
    with pytest.raises(UserError, match="3 or more"):
        shape_kd.compute(x[:1], y)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_coverage_of_shape_kd_of_twenty_pictures(shift):
    draw = lambda seed, n: torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = draw(0, 600)
    truth = shape_kd.compute(draw(1, 20000) + shift, drawn).value
    found = [shape_kd.compute(draw(t + 2, 20) + shift, drawn).interval for t in range(400)]
    assert 0.9 <= sum(low <= truth <= high for low, high in found) / 400 <= 0.995


def test_an_object_is_cut_out_without_colour_and_ground():
    """A judge that sees the red: a square of 24×12 pixels in a corner of green, and in a second picture nothing."""
    images = torch.full((2, 3, 64, 64), -1.0)
    images[:, 1] = 1.0
    images[0, :, 8:20, 30:54] = torch.tensor([1.0, -1, -1])[:, None, None]
    red = lambda x: torch.nn.functional.avg_pool2d((x[:, :1] > 0).float(), 2) * 40 - 20
    crops, seen = shapes.cut_out(images, lambda x: (None, None, red(x)))
    assert seen.tolist() == [True, False]
    assert crops.shape == (2, 3, 160, 160)
    assert torch.equal(crops[:, 0], crops[:, 2]), "grey"
    grey = 0.299 - 0.587 - 0.114  # of red
    assert crops[0, 0, 80, 80] == pytest.approx(grey, abs=1e-3)
    assert crops[0, 0, 5:15].abs().max() < 1e-3, "the ground is mid-grey"
    inside = crops[0, 0] < grey / 2
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    width, height = int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)
    assert width == pytest.approx(160 / 1.3, abs=3), "a margin of 15 % of the longer side, on either"
    assert width == pytest.approx(2 * height, abs=4), "proportions stay"
    # The object lies at the picture's upper edge: the crop stays inside of it.
    assert int(rows[0]) > 0
    assert crops[1].abs().max() < 1e-6, "nothing there"


def test_only_of_drawn_scenes():
    assert "only drawn scenes" in str(shapes.missing(Settings()))


@needs_lite2
def test_the_command_tells_noise_from_scenes(tmp_path, tiny_shards, monkeypatch):
    monkeypatch.setattr(shapes, "DRAWN", 60)
    result = command(
        "--floors", tiny_shards, "--reference", tiny_shards, "--samples", 20, "--metrics", "shape,shape_kd",
        out=tmp_path / "f.json",
    )  # fmt: skip
    real, noise = result["floors"]["real"], result["floors"]["noise"]
    assert real["shape_kd"] < noise["shape_kd"]
    assert noise["shape"] < 0.2
    assert result["protocol"]["metric shape"] == {"version": 1, "agree": 3}
    assert "efficientnet-lite2" in result["protocol"]["shapes"]


STRENGTHS = (0.03, 0.07, 0.12, 0.2, 0.3)


@pytest.fixture(scope="module")
def judged():
    """Kind of picture → its features and what was asked, of 100 each: five lots of twenty."""
    network = shapes.load(Settings(scenes=True), "cpu")
    apart, plans = scenes._apart(100, 3_000_000)
    objects, _ = scenes._subjects(plans)
    rng, (ground, things) = Rng(0, 1), apart.layers()
    kinds = {"drawn": floats(apart.whole)} | standins.floors(apart, rng)
    for s in STRENGTHS:
        bent = standins.warped(things[:, 0], torch.full((100,), s), rng)  # a scene has one thing
        kinds[f"warped {s}"] = standins.lay(ground, bent[:, None])
    for s in (1.0, 2.0):
        kinds[f"blurred {s:g}"] = standins.blur(kinds["drawn"], s)
    asked = dict.fromkeys(kinds, objects)
    texts, wanted, _ = scenes.PROBE.prompts("seen", 100, 0)
    stream = load_model("scenes-stylegan2", "cpu").stream(texts, seeds=range(100))
    kinds["shipped"], asked["shipped"] = torch.cat(list(stream)), list(wanted)
    seen = {k: [network.see(part, []) for part in x.split(50)] for k, x in kinds.items()}
    return network.itself, {
        k: (torch.cat([p["shape"] for p in v]), torch.cat([p["shape_seen"] for p in v]), asked[k])
        for k, v in seen.items()
    }


@pytest.mark.slow
@needs_lite2
def test_twenty_of_each_tell_scribbles_from_shapes(judged):
    """In each of five lots, none of which has a picture of another."""
    drawn, kinds = judged
    table: dict[str, list[tuple[float, float]]] = {}
    for lot in range(5):
        rows = slice(20 * lot, 20 * lot + 20)
        of = {k: (x[rows], seen[rows], asked[rows]) for k, (x, seen, asked) in kinds.items()}
        kd = {k: shape_kd.compute(x, drawn.shapes) for k, (x, *_) in of.items()}
        share = {k: float(shape.compute(*v, drawn.shapes, drawn.objects)["shape"].mean()) for k, v in of.items()}
        for k in kinds:
            table.setdefault(k, []).append((share[k], 1000 * kd[k].value))
        for kind in ("noise", "ellipse", "box", "scribble", "warped", "blurred"):
            assert kd["drawn"].interval[1] < kd[kind].interval[0], (lot, kind)
            assert share[kind] <= 0.25 < 0.9 <= share["drawn"], (lot, kind)
        assert kd["drawn"].value < kd["shipped"].value < kd["scribble"].value, lot
    for kind, values in table.items():
        print(f"{kind:<14}" + "".join(f"{100 * a:6.0f} % {b:5.0f}  " for a, b in values))
    mean = {k: torch.tensor(v).mean(0).tolist() for k, v in table.items()}
    ladder = ["drawn", *(f"warped {s}" for s in STRENGTHS[:4])]
    assert [mean[k][1] for k in ladder] == sorted(mean[k][1] for k in ladder)
    assert [mean[k][0] for k in ladder] == sorted((mean[k][0] for k in ladder), reverse=True)
    assert mean["drawn"][1] < mean["blurred 1"][1] < mean["blurred 2"][1] < mean["blurred"][1]
