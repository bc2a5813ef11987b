"""The scoring command: what it judges, what it says of how, and what it refuses."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from t2i import build, config, files
from t2i.data import coco
from t2i.data.manifest import Options
from t2i.data.write import write_shards
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.metrics import compare, equivariance, lpips_distance, networks, sources, suite
from t2i.metrics.captions import read_captions
from t2i.metrics.networks import Settings, inception
from t2i.metrics.protocol import hashed
from t2i.model import load_model, save_model
from t2i.pictures import to_uint8
from t2i.rng import SampleRng

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TINY = [
    "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128", "generator.channel_max=8",
    "discriminator.channel_max=8", "generator.latent_dim=8", "generator.style_dim=8",
    "generator.mapping_layers=1",
]  # fmt: skip


def command(*arguments, out=None):
    """Runs the command here and returns its JSON."""
    spec = importlib.util.spec_from_file_location("score_script", ROOT / "scripts" / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([*map(str, arguments), "--device", "cpu", *(["--json", str(out)] if out else [])])
    return json.loads(Path(out).read_text()) if out else None


@pytest.fixture(scope="module")
def model(tiny_shards, tmp_path_factory):
    """A generator without training, that says it was trained on the tiny shards."""
    folder = tmp_path_factory.mktemp("model")
    settings = config.load(None, [*TINY, f"data.shards={tiny_shards}"])
    dim = load_text_encoder("scenes-clip").dim
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build.generator(settings, dim, 0)
    save_model(folder, generator.state_dict(), settings, dim, 3.0)
    return folder


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    rng = torch.Generator().manual_seed(0)
    file = tmp_path_factory.mktemp("vgg") / "vgg.pt"
    torch.save(
        {
            "features.0.weight": 0.3 * torch.randn(6, 3, 3, 3, generator=rng),
            "features.0.bias": torch.zeros(6),
            "features.2.weight": 0.3 * torch.randn(6, 6, 3, 3, generator=rng),
            "features.2.bias": torch.zeros(6),
        },
        file,
    )
    return file


METRICS = "clip_score,clip_fid,cmmd,r_precision,swd,ms_ssim,soa,vgg,probe"


@pytest.fixture(scope="module")
def scored(model, vgg_file, tiny_shards, tmp_path_factory):
    """Scores of the tiny model, and where they were written."""
    file = tmp_path_factory.mktemp("scores") / "new" / "a.json"
    return command(
        "--checkpoint", model, "--reference", tiny_shards, "--metrics", METRICS, "--vgg", vgg_file, "--samples", 30,
        "--pairs", 8, "--jackknife", 3, out=file,
    ), file  # fmt: skip


def test_scores_come_with_their_protocol(scored, model, tiny_shards):
    result, file = scored
    scores, protocol = result["scores"], result["protocol"]
    assert all(isinstance(v, float) for v in scores.values())
    assert {
        "clip_score", "encoder_image_to_text_r1", "encoder_text_to_image_r10", "clip_fid", "cmmd", "r_precision", "swd",
        "swd_16", "ms_ssim", "soa_i", "soa_c", "VGG", "VGG relu1_2", "probe_object", "probe_both",
        "probe_ceiling_object", "probe_ceiling_both", "probe_floor_noise", "probe_floor_warped",
    } <= set(scores)  # fmt: skip
    assert not any("fid" in name and name != "clip_fid" for name in scores), "nothing else may be called FID"
    assert scores["real_clip_score"] > scores["clip_score"] + 0.1
    for name, (low, high) in result["intervals"].items():
        assert low <= scores[name] + 1e-9, name
        assert scores[name] <= high + 1e-9, name
    assert {"clip_score", "cmmd", "ms_ssim", "probe_both"} <= set(result["intervals"])
    assert not {"VGG", "clip_fid", "cmmd_bias", "swd"} & set(result["intervals"])
    assert any("clip_fid: no interval: " in note for note in result["notes"])
    assert 0 < scores["cmmd_bias"] < scores["cmmd"]
    assert (protocol["resolution"], protocol["samples"], protocol["pairs"]) == (16, 30, 8)
    assert (protocol["reference_count"], protocol["truncation"], protocol["seed"]) == (40, 1.0, 0)
    assert protocol["resize"] == "crop, Pillow Lanczos, JPEG 95"
    assert "scenes" in protocol["reference_split"]
    assert protocol["clip"].endswith(" pixels")
    assert result["judges"]["clip"] == "scenes-clip-score"
    assert protocol["metric ms_ssim"] == {"version": 2}
    assert (protocol["encoding"], protocol["resized"]) == ("lossless", "no")
    assert len(protocol["vgg"].split()[0]) == 16
    assert (result["subject"]["kimg"], result["subject"]["model"]) == (3.0, str(model))
    assert len(result["subject"]["weights_sha256"]) == 64
    saved = json.loads(file.with_suffix(".captions.json").read_text())
    assert saved["sha256"] == protocol["captions"]
    assert len(saved["captions"]) == 30
    assert len({c["image_id"] for c in saved["captions"]}) == 30, "one caption a picture"


def test_training_on_the_reference_is_noticed_and_few_pictures_are(scored):
    result, _ = scored
    assert result["leaked_reference_pictures"] == 40
    assert any("40 of the 40 reference pictures are in the training shards" in note for note in result["notes"])
    assert any("clip_fid: 30 pictures but" in note for note in result["notes"])


def test_a_folder_of_the_same_pictures_has_the_same_scores(scored, model, vgg_file, tiny_shards, tmp_path):
    """So peers are scored by the same code; and what a file holds is what a model is judged by."""
    result, file = scored
    captions = read_captions(file.with_suffix(".captions.json"))
    made = sources.Generated(load_model(model), captions)
    for n, pixels in enumerate(to_uint8(made.pick(range(30))).numpy()):
        Image.fromarray(pixels).save(tmp_path / f"{n:04d}.png")
    metrics = METRICS.replace("ms_ssim,", "")
    again = command(
        "--pictures", tmp_path, "--captions", file.with_suffix(".captions.json"), "--reference", tiny_shards,
        "--metrics", metrics, "--vgg", vgg_file, "--jackknife", 0, out=tmp_path / "b.json",
    )  # fmt: skip
    assert again["scores"] == {k: v for k, v in result["scores"].items() if k != "ms_ssim"}
    assert again["intervals"] == {}
    assert (again["subject"]["pictures"], again["subject"]["kimg"]) == (str(tmp_path), None)
    # ψ and the noise of another system's pictures are unknown: that alone forbids no comparison.
    assert compare.differences([result, again]) == {}
    assert "swd_16" in compare.text(compare.gather([file, tmp_path / "b.json"]))


def test_what_is_not_comparable_is_refused_by_name(scored, tmp_path, capsys):
    result, file = scored
    other = json.loads(file.read_text())
    other["protocol"] |= {"truncation": 0.7, "clip": "another 0123"}
    other["scores"]["clip_score"] = 0.75
    (tmp_path / "b.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"clip: \w+ 64 pixels, another 0123; truncation: 1.0, 0.7; .*--force"):
        command("--compare", file, tmp_path / "b.json")
    command("--compare", file, tmp_path / "b.json", "--force")
    printed = capsys.readouterr().out
    assert "NOT COMPARABLE in truncation: 1.0, 0.7" in printed
    row = next(line for line in printed.splitlines() if line.startswith("clip_score"))
    assert row.split() == ["clip_score", f"{result['scores']['clip_score']:.4g}", "0.75", "higher"]
    # Only what a shared score depends on counts: with probe alone, no CLIP looked.
    other["protocol"]["truncation"] = 1.0
    other["scores"] = {"probe_object": 0.5}
    (tmp_path / "b.json").write_text(json.dumps(other))
    command("--compare", file, tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{}")
    for wrong in ("c.json", "none.json"):
        with pytest.raises(UserError, match=wrong):
            command("--compare", file, tmp_path / wrong)


def test_truncations_are_scored_by_one_protocol_and_drawn_as_a_curve(model, tiny_shards, tmp_path, capsys):
    ask = ("--checkpoint", model, "--reference", tiny_shards, "--metrics", "cmmd,clip_score", "--samples", 12)
    command(*ask, "--truncations", "1,0.5", "--json", tmp_path / "s.json")
    read = [json.loads((tmp_path / f"s-psi{psi}.json").read_text()) for psi in ("1", "0.5")]
    assert protocol_differences(read) == {"truncation": [1.0, 0.5]}
    with Image.open(tmp_path / "s-truncations.png") as figure:
        assert figure.size[0] > 600
    printed = capsys.readouterr()
    assert "s-psi1          s-psi0.5   better" in printed.out
    assert printed.err.count("40 of the 40 reference pictures") == 2
    # Each is what it is alone, and the captions are beside.
    alone = command(*ask, "--truncation", 0.5, out=tmp_path / "alone.json")
    assert alone["scores"] == read[1]["scores"]
    assert (tmp_path / "s-psi0.5.captions.json").is_file()
    command(
        *ask, "--truncations", "1,0.5", "--json", tmp_path / "s.json", "--out", tmp_path / "c.md", tmp_path / "c.svg"
    )
    assert (tmp_path / "c.md").is_file()
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()
    for wrong, said in (("1", "two or more"), ("1,1", "that differ"), ("1,a", "numbers with commas")):
        with pytest.raises(UserError, match=said):
            command(*ask, "--truncations", wrong)


def protocol_differences(results):
    first, second = (r["protocol"] for r in results)
    return {k: [first[k], second[k]] for k in first if first[k] != second.get(k)}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_another_process_beside_makes_no_difference(model, tiny_shards, vgg_file, tmp_path, monkeypatch):
    """Two processes, dealt blocks of pictures, end with the scores of one to the last bit."""
    monkeypatch.setattr(suite, "BLOCK", 4)
    arguments = (
        "--checkpoint", model, "--reference", tiny_shards, "--metrics", "swd,ms_ssim,vgg,probe", "--vgg", vgg_file,
        "--samples", 18, "--pairs", 5, "--jackknife", 0,
    )  # fmt: skip
    alone = command(*arguments, out=tmp_path / "one.json")
    context = (arguments, free_port(), tmp_path / "two.json")
    mp.start_processes(_command_beside, context, nprocs=2, start_method="fork")
    assert json.loads((tmp_path / "two.json").read_text()) == alone
    assert (tmp_path / "world").read_text() == "2"


def _command_beside(rank, arguments, port, out):
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.update(  # as accelerate launch sets it
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    command(*arguments, "--json", out)
    out.with_name("world").write_text(str(PartialState().num_processes))


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --- the networks


@pytest.fixture(scope="module")
def inception_files(tmp_path_factory):
    """A network without training in both published forms; the second as old versions wrote it, without counts."""
    from torchvision.models import Inception3

    folder = tmp_path_factory.mktemp("inception")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Inception3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    torch.save(state, folder / inception.FILES[0])
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, folder / inception.FILES[1])
    yield folder
    shutil.rmtree(folder)  # 200 MB


def test_both_published_forms_of_inception_are_one_network(inception_files, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="not 6726825d0af5f729"):
        ours = [
            networks.load("inception", Settings({"inception": str(inception_files / name)}), "cpu")
            for name in inception.FILES
        ]
    assert torch.equal(before, torch.get_rng_state())
    assert ours[0].fingerprint == ours[1].fingerprint
    pixels = torch.randint(0, 256, (2, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = pixels.float() / 127.5 - 1
    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(inception_files / inception.FILES[0]))
    seen = [network.see(images, range(2)).values() for network in ours]
    for a, b, c in zip(*seen, theirs(pixels), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, c)
    # Found in torch's cache without being named.
    cache = inception_files / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache.parent))
    assert inception.find() is None
    os.link(inception_files / inception.FILES[1], cache / inception.FILES[1])
    assert inception.find() == cache / inception.FILES[1]


def test_scores_on_inception(inception_files, model, tiny_shards, tmp_path):
    result = command(
        "--checkpoint", model, "--reference", tiny_shards, "--metrics", "fid,is", "--samples", 4,
        "--reference-count", 4, "--jackknife", 0, "--inception", inception_files / inception.FILES[0],
        out=tmp_path / "a.json",
    )  # fmt: skip
    assert list(result["scores"]) == ["fid", "is"]
    assert result["scores"]["fid"] > 0
    assert 1 <= result["scores"]["is"] < 1.1
    assert any("sha256" in note for note in result["notes"])
    assert any("fid: 4 pictures but 2048 features" in note for note in result["notes"])


def test_clean_fid_is_a_score_of_its_own_on_the_same_weights(inception_files, model, tiny_shards, tmp_path):
    file = inception_files / inception.FILES[0]
    ask = ("--checkpoint", model, "--reference", tiny_shards, "--samples", 4, "--reference-count", 4, "--jackknife", 0)
    result = command(*ask, "--metrics", "clean_fid,fid", "--inception", file, out=tmp_path / "a.json")
    assert list(result["scores"]) == ["fid", "clean_fid"]
    assert abs(result["scores"]["clean_fid"] / result["scores"]["fid"] - 1) > 1e-3
    assert result["protocol"]["inception_clean"] == f"{result['protocol']['inception']} Pillow bicubic to 299, float"
    # At 299 pixels neither resizes anything.
    pixels = torch.randint(0, 256, (1, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="sha256"):
        both = [networks.load(n, Settings({"inception": str(file)}), "cpu") for n in ("inception", "inception_clean")]
    plain, clean = (network.see(pixels / 127.5 - 1, range(1)) for network in both)
    torch.testing.assert_close(clean["inception_clean"], plain["inception"])


def test_missing_weights_say_what_where_and_how_to_know_it(model, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    ask = lambda *more: command("--checkpoint", model, "--reference", tiny_shards, "--samples", 4, *more)
    with pytest.raises(UserError, match="--metrics fid") as error:
        ask("--metrics", "probe,fid")
    message = str(error.value)
    for part in (*inception.FILES, *inception.HOMES, inception.SHA256, "--inception", str(tmp_path)):
        assert part in message
    assert "\n" not in message
    with pytest.raises(UserError, match=r"lpips_diversity: no alexnet-owt-7be5be79\.pth at"):
        ask("--metrics", "lpips_diversity")
    with pytest.raises(UserError, match=r"vgg: no VGG: vgg19-dcbb9e9d\.pth"):
        ask("--metrics", "vgg")
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"bad\.pth: cannot be read as weights-inception"):
        ask("--metrics", "fid", "--inception", tmp_path / "bad.pth")
    # Without names: what there is, and a line for the rest.
    command("--checkpoint", model, "--reference", tiny_shards, "--samples", 4, out=tmp_path / "a.json")
    printed = capsys.readouterr()
    assert "left out: fid, kid, is, prdc: no Inception weights" in printed.err
    assert "left out: ppl: no vgg16-397923af.pth" in printed.err
    assert {"clip_score", "probe_both", "swd", "ms_ssim", "soa_i"} <= set(
        json.loads((tmp_path / "a.json").read_text())["scores"]
    )
    assert "better" in printed.out


def test_captions_of_ones_own_need_no_reference(model, tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a red bus\n\n a dog \n")
    result = command("--checkpoint", model, "--captions", tmp_path / "captions.txt", out=tmp_path / "a.json")
    assert list(result["scores"]) == ["ms_ssim"]
    assert result["protocol"]["samples"] == 2
    assert "swd" in capsys.readouterr().err.split("needs real pictures")[0]
    result = command(
        "--checkpoint", model, "--captions", tmp_path / "captions.txt", "--clip", "scenes-clip-score", "--metrics",
        "clip_score", out=tmp_path / "a.json",
    )  # fmt: skip
    assert list(result["scores"]) == ["clip_score", "clip_score_x100", "clip_score_x2.5"]


def test_ppl_and_lpips_walk_the_generator(model, tiny_shards, tmp_path, monkeypatch):
    class Squared(torch.nn.Module):
        def forward(self, a, b):
            return (a - b).double().square().flatten(1).sum(1)

    monkeypatch.setattr(networks, "missing", lambda *_: None)
    monkeypatch.setattr(lpips_distance, "load", lambda *_: Squared())
    result = command(
        "--checkpoint", model, "--reference", tiny_shards, "--metrics", "ppl,lpips_diversity", "--samples", 6,
        "--pairs", 3, out=tmp_path / "a.json",
    )  # fmt: skip
    assert result["scores"]["ppl"] > 0
    assert result["scores"]["lpips_diversity"] > 0
    assert result["protocol"]["pairs"] == 3


def test_equivariance_of_a_generator(tiny_shards, tmp_path):
    settings = config.load(None, [*TINY, "model.resolution=32"])
    dim = load_text_encoder("scenes-clip").dim
    save_model(tmp_path / "m", build.generator(settings, dim, 0).state_dict(), settings, dim, 1.0)
    (tmp_path / "captions.txt").write_text("a red bus\na dog\na zebra\n")
    ask = ("--checkpoint", tmp_path / "m", "--captions", tmp_path / "captions.txt")
    result = command(*ask, "--metrics", "eq_r,eq_t", out=tmp_path / "a.json")
    assert list(result["scores"]) == ["eq_t", "eq_t_frac", "eq_r"]
    # What the suite's way through squared errors says is what the metric says of the same pictures.
    model = load_model(tmp_path / "m")
    latent = model.generator.latent(3, SampleRng([0, 1, 2]))
    text = model.text_encoder(["a red bus", "a dog", "a zebra"])
    expected = equivariance.compute(model.generator, latent, text)
    assert list(result["scores"].values()) == pytest.approx(list(expected.values()))
    assert "eq_t" not in command(*ask, out=tmp_path / "a.json")["scores"]  # costs too much to be had unasked


def test_a_metric_that_cannot_be_computed_is_left_out_and_named(model, tiny_shards, tmp_path, capsys):
    """R-precision of captions that are all alike; the others are kept, and what was asked too much is told."""
    (tmp_path / "captions.txt").write_text("a red bus\n" * 3)
    ask = ("--checkpoint", model, "--captions", tmp_path / "captions.txt", "--clip", "scenes-clip-score")
    reference = ("--reference", tiny_shards, "--reference-count", 5000)
    result = command(*ask, *reference, "--metrics", "r_precision,cmmd", out=tmp_path / "a.json")
    assert list(result["scores"]) == ["cmmd", "cmmd_bias"]
    assert list(result["left_out"]) == ["r_precision"]
    printed = capsys.readouterr()
    assert "left out: r_precision: " in printed.err
    assert f"--reference-count 5000: --reference {tiny_shards} has 40 pictures, and all are taken" in printed.err
    with pytest.raises(UserError, match="no metric can be computed of these pictures: r_precision: "):
        command(*ask, "--metrics", "r_precision", out=tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists(), "a run that failed leaves no file"
    (tmp_path / "c.json").mkdir()
    with pytest.raises(UserError, match=r"c\.json"):
        command(*ask, "--metrics", "cmmd", out=tmp_path / "c.json")


def test_a_clip_that_training_used_is_told_of(model, tiny_shards, tmp_path):
    ask = ("--checkpoint", model, "--reference", tiny_shards, "--metrics", "clip_score", "--samples", 4)
    copied = tmp_path / "copy"
    shutil.copytree(ROOT / "t2i" / "assets" / "scenes-clip", copied)  # by another name, but the same weights
    for name in ("scenes-clip", copied):
        result = command(*ask, "--clip", name, out=tmp_path / "a.json")
        assert any("used in training" in note for note in result["notes"])
    assert not any("used in" in n for n in command(*ask, "--jackknife", 0, out=tmp_path / "a.json")["notes"])


def test_soa_with_a_detector_of_ones_own(model, tiny_shards, tmp_path, monkeypatch):
    (tmp_path / "yes_man.py").write_text(
        "def detect(images):\n    assert images.shape[1:] == (3, 16, 16) and images.abs().max() <= 1\n"
        "    return [{'train', 'person', 'kite', 'bus'}] * len(images)\n"
        "def odd(images):\n    return [{'unicorn'}] * len(images)\n"
    )
    monkeypatch.chdir(tmp_path)
    ask = ("--checkpoint", model, "--reference", tiny_shards, "--metrics", "soa", "--samples", 40)
    result = command(*ask, "--detector", "yes_man:detect", out=tmp_path / "a.json")
    assert 0 < result["scores"]["soa_c"] < 1
    assert result["judges"]["detector"] == "yes_man:detect"
    before, module = result["protocol"]["detector"], tmp_path / "yes_man.py"
    assert before == files.sha256(module)[:16]
    module.write_text(module.read_text() + "\nimport torch\nweights = torch.nn.Linear(2, 2)\n")
    monkeypatch.delitem(sys.modules, "yes_man")
    after = command(*ask, "--detector", "yes_man:detect", out=tmp_path / "a.json")["protocol"]["detector"]
    assert after.split()[0] != before
    assert after.split()[1] == hashed(sys.modules["yes_man"].weights)
    with pytest.raises(UserError, match="unicorn"):
        command(*ask, "--detector", "yes_man:odd")


# --- what is judged


def test_what_cannot_be_judged_is_one_line(model, tiny_shards, tmp_path):
    ask = ("--checkpoint", model, "--reference", tiny_shards)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red bus\n")
    (tmp_path / "b.txt").write_text("a red bus\n\na dog\n")
    folder = ("--pictures", tmp_path, "--captions", tmp_path / "a.txt")
    for wrong, said in (
        ((*folder, "--reference", tiny_shards, "--metrics", "probe"), "16×16, those to be judged 32×32.*--size 32"),
        (("--pictures", tmp_path), "no metric can be computed: .*needs captions"),
        (("--pictures", tmp_path, "--metrics", "ms_ssim"), "--metrics ms_ssim: needs captions"),
        (("--checkpoint", model, "--resize", 16), "only of --pictures"),
        (("--pictures", tmp_path, "--captions", tmp_path / "b.txt"), "2 captions for 1 pictures"),
        (("--pictures", tmp_path / "none"), "no such folder"),
        ((*folder, "--metrics", "vgg"), "--metrics vgg: needs real pictures"),
        ((*folder, "--metrics", "ppl"), "needs the generator itself"),
        ((*folder, "--metrics", "ms_ssim"), "two pictures of a caption"),
        ((*folder, "--checkpoint", model), "leave out --checkpoint"),
        ((*ask, "--samples", 41), "has 40"),
        ((*ask, "--samples", 1), "2 or more"),
        ((*ask, "--metrics", "fido"), "did you mean 'fid'"),
        (("--checkpoint", model), "no captions"),
        (("--checkpoint", model, "--reference", tmp_path / "none"), "none"),
        (("--compare", tmp_path / "a.json"), "two files"),
    ):
        with pytest.raises(UserError, match=said) as error:
            command(*wrong)
        assert "\n" not in str(error.value)


# --- people


def test_the_shipped_judge_agrees_with_the_captions_of_scenes(tiny_shards, tmp_path, capsys):
    result = command("--agreement", tiny_shards, out=tmp_path / "a.json")
    assert result["scores"]["encoder_agreement"] > 0.9
    assert result["intervals"]["encoder_agreement"][0] > 0.85
    assert result["scores"]["encoder_text_to_image_r10"] > result["scores"]["encoder_text_to_image_r1"]
    assert "200 captions; chance agrees in 50 %" in capsys.readouterr().out


@pytest.mark.skipif(not (SHARED / "data" / "flickr8k-128").is_dir(), reason="needs flickr8k-128 beside the checkout")
def test_an_encoder_of_another_world_is_told_by_real_captions(tmp_path):
    """On photographs the encoder of drawn scenes knows next to nothing, and the figures say so."""
    data = SHARED / "data" / "flickr8k-128"
    annotations = coco.read(data / "annotations" / "captions_val.json")
    annotations.pictures = annotations.pictures[:60]
    write_shards(annotations, data / "images", tmp_path / "val", Options(size=32), {"kind": "coco"}, workers=1)
    result = command("--agreement", tmp_path / "val", "--clip", "scenes-clip-score", out=tmp_path / "a.json")
    assert 0.35 < result["scores"]["encoder_agreement"] < 0.75
    assert result["scores"]["encoder_image_to_text_r1"] < 0.2
    assert np.isfinite(list(result["scores"].values())).all()
    with pytest.raises(UserError, match="name one that training has not seen"):
        command("--agreement", tmp_path / "val")
