"""What pictures are compared with besides shards: a folder, or mean and covariance of a file."""

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.encoders.vgg import load_vgg
from t2i.errors import UserError
from t2i.metrics import compare, frechet, vgg
from t2i.metrics.references import PictureFolder, Statistics, find
from t2i.metrics.sources import Reference

ROOT = Path(__file__).parents[1]


def command(*arguments, out=None):
    spec = importlib.util.spec_from_file_location("score_script", ROOT / "scripts" / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([*map(str, arguments), "--device", "cpu", *(["--json", str(out)] if out else [])])
    return json.loads(Path(out).read_text()) if out else None


def pictures(folder, seed, count=30, size=16):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for n in range(count):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """A VGG of two layers of three and four channels."""
    rng = torch.Generator().manual_seed(0)
    file = tmp_path_factory.mktemp("vgg") / "vgg.pt"
    weights = {
        "features.0.weight": torch.randn(3, 3, 3, 3, generator=rng), "features.0.bias": torch.zeros(3),
        "features.3.weight": torch.randn(4, 3, 3, 3, generator=rng), "features.3.bias": torch.zeros(4),
    }  # fmt: skip
    torch.save(weights, file)
    return file


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return pictures(folder / "fake", 0), pictures(folder / "real", 1, 40)


def ask(eyes, sets, reference, *more):
    return ("--pictures", sets[0], "--reference", reference, "--metrics", "vgg", "--vgg", eyes, "--jackknife", 0, *more)


def test_a_folder_is_a_reference(eyes, sets, tmp_path):
    result = command(*ask(eyes, sets, sets[1]), out=tmp_path / "a.json")
    seen = [
        vgg.features(PictureFolder(folder).pick(range(count)), load_vgg(str(eyes)))
        for folder, count in zip(sets, (30, 40))
    ]
    assert result["scores"]["VGG"] == pytest.approx(frechet.frechet(*seen))
    p = result["protocol"]
    assert (p["reference_count"], p["reference_split"], p["resize"]) == (40, "folder real", "none, lossless")
    # The same bytes under other names are the same reference; others are not.
    assert p["reference"] == PictureFolder(sets[1]).digest() != PictureFolder(sets[0]).digest()
    few = command(*ask(eyes, sets, sets[1], "--reference-count", 20), out=tmp_path / "a.json")
    assert few["protocol"]["reference_count"] == 20


def test_pictures_and_a_folder_of_other_sizes_are_resized_alike(eyes, sets, tmp_path):
    large = pictures(tmp_path / "large", 3, size=24)
    with pytest.raises(UserError, match="24×24, those to be judged 16×16"):
        command(*ask(eyes, sets, large))
    result = command(*ask(eyes, sets, large, "--resize", 16), out=tmp_path / "a.json")
    assert result["protocol"]["resize"] == "to 16, the middle square, Pillow Lanczos, lossless"
    odd = pictures(tmp_path / "odd", 4)
    Image.new("RGB", (20, 16)).save(odd / "odd.png")
    with pytest.raises(UserError, match=r"--reference .*odd\.png: 20×16"):
        command(*ask(eyes, sets, odd))


def test_a_folder_without_captions_says_so_where_they_are_needed(sets):
    with pytest.raises(UserError, match="its pictures have no captions; give --captions FILE"):
        command("--checkpoint", "scenes-stylegan2", "--reference", sets[1], "--resize", 64, "--metrics", "swd")


def test_what_a_reference_is_shows_from_what_it_holds(tiny_shards, sets, tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert isinstance(find(str(tiny_shards)), Reference)
    assert isinstance(find(str(sets[1])), PictureFolder)
    assert isinstance(find(str(tmp_path / "a.npz")), Statistics)
    with pytest.raises(UserError, match="none"):
        find(str(tmp_path / "none"))


def test_statistics_out_and_in_again_are_the_reference(eyes, sets, tmp_path):
    """The same score to rounding, by one protocol; and arrays that other tools read."""
    file = tmp_path / "new" / "real.npz"
    save = ("--reference", sets[1], "--metrics", "vgg", "--vgg", eyes, "--save-reference", file)
    command(*save)
    of_pictures = command(*ask(eyes, sets, sets[1]), out=tmp_path / "a.json")
    of_statistics = command(*ask(eyes, sets, file), out=tmp_path / "b.json")
    assert of_statistics["scores"] == pytest.approx(of_pictures["scores"])
    assert of_statistics["protocol"] == of_pictures["protocol"]
    assert compare.differences([of_pictures, of_statistics]) == {}
    rows = vgg.features(PictureFolder(sets[1]).pick(range(40)), load_vgg(str(eyes))).numpy()
    with np.load(file, allow_pickle=False) as read:  # as pytorch-fid, clean-fid, ADM's evaluator and EDM do
        np.testing.assert_allclose(read["mu"], rows.mean(0))
        np.testing.assert_allclose(read["sigma"], np.cov(rows, rowvar=False))
        assert read["count"] == 40
    assert list(Statistics(file).fingerprints.values()) == [of_pictures["protocol"]["vgg"]]


def test_statistics_of_several_networks_stand_side_by_side(eyes, sets, tmp_path):
    file = tmp_path / "real.npz"
    networks = ("--vgg", eyes, "--clip", "scenes-clip-score")
    command("--reference", sets[1], "--metrics", "vgg,clip_fid", *networks, "--save-reference", file)
    with np.load(file, allow_pickle=False) as read:
        assert {"mu", "sigma", "mu_vgg", "sigma_vgg", "count", "about"} == set(read.files)
        assert read["mu_vgg"].shape == (7,)
    both = ("--pictures", sets[0], "--metrics", "vgg,clip_fid", *networks, "--jackknife", 0)
    a = command(*both, "--reference", sets[1], out=tmp_path / "a.json")
    b = command(*both, "--reference", file, out=tmp_path / "b.json")
    assert b["scores"] == pytest.approx(a["scores"], rel=1e-5)


def test_statistics_of_another_tool_are_taken_and_the_protocol_says_what_is_not_known(eyes, sets, tmp_path):
    rows = vgg.features(PictureFolder(sets[1]).pick(range(40)), load_vgg(str(eyes))).numpy()
    # ADM's evaluator has those of a second set of features beside, and pictures.
    np.savez(
        tmp_path / "theirs.npz", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False), mu_s=np.zeros(2), sigma_s=np.eye(2),
        arr_0=np.zeros((2, 4, 4, 3), np.uint8),
    )  # fmt: skip
    result = command(*ask(eyes, sets, tmp_path / "theirs.npz"), out=tmp_path / "a.json")
    of_pictures = command(*ask(eyes, sets, sets[1]), out=tmp_path / "b.json")
    assert result["scores"] == pytest.approx(of_pictures["scores"])
    p = result["protocol"]
    assert (p["resize"], p["reference_count"]) == ("unknown", "unknown")
    assert "do not say of which network" in p["reference_split"]
    assert not any("few real" in n and "1099511627776" in n for n in result["notes"])
    with pytest.raises(UserError, match=r"not comparable; .*reference"):
        compare.gather([tmp_path / "a.json", tmp_path / "b.json"])
    with pytest.raises(UserError, match=r"ask for the metric by name"):  # of itself it may be any network's
        command("--pictures", sets[0], "--reference", tmp_path / "theirs.npz", "--vgg", eyes)


def test_what_statistics_cannot_do_is_said(eyes, sets, tmp_path):
    file = tmp_path / "real.npz"
    command("--reference", sets[1], "--metrics", "vgg", "--vgg", eyes, "--save-reference", file)
    other = tmp_path / "other.pt"
    weights = torch.load(eyes, weights_only=True)
    torch.save({k: 2 * v for k, v in weights.items()}, other)
    ask_for = lambda metrics, *more: ("--pictures", sets[0], "--reference", file, "--metrics", metrics, *more)
    for wrong, said in (
        (ask_for("swd"), "--metrics swd: needs real pictures, and real.npz has their mean and covariance alone"),
        (ask_for("clip_fid", "--clip", "scenes-clip-score"), "real.npz has no statistics of clip's features"),
        (
            ask_for("vgg", "--vgg", other),
            r"of weights \w+ torchvision, and \w+ torchvision judge",
        ),
        (ask_for("vgg", "--vgg", eyes, "--reference-count", 5), "statistics, which are of all their pictures"),
        (("--save-reference", file), "of what? give --reference"),
        (("--reference", sets[1], "--save-reference", tmp_path / "a.txt"), "name it .npz"),
        (("--reference", sets[1], "--save-reference", file, "--metrics", "swd"), "swd needs more of pictures"),
        (("--reference", file, "--save-reference", file, "--metrics", "vgg"), "is such a file already"),
        (
            ("--reference", sets[1], "--save-reference", file, "--metrics", "vgg", "--vgg", tmp_path / "none.pt"),
            "no such weight file",
        ),
    ):
        with pytest.raises(UserError, match=said.replace("?", r"\?")) as error:
            command(*wrong)
        assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("kind", ["pickle", "text", "short", "shapes", "object", "skew", "nan", "npy"])
def test_files_that_are_no_statistics_are_refused_and_run_nothing(kind, tmp_path):
    file, eye = tmp_path / "a.npz", np.eye(3)
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Evil()))
    elif kind == "text":
        file.write_text("mu, sigma")
    elif kind == "npy":
        with file.open("wb") as out:
            np.save(out, eye)
    else:
        arrays = {
            "short": {"mu": np.zeros(3)}, "shapes": {"mu": np.zeros(2), "sigma": eye},
            "object": {"mu": np.array([Evil()] * 3), "sigma": eye},
            "skew": {"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))},
            "nan": {"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)},
        }[kind]  # fmt: skip
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"--reference .*a\.npz: .*give arrays mu") as error:
        find(str(file))
    assert "\n" not in str(error.value)
