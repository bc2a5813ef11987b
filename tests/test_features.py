"""Scores on the features of any network: the networks by their names, and every score beside a peer's code."""

import json
import math
import warnings

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from test_score import command

from t2i.encoders import trunk as trunks
from t2i.encoders.clip import resample
from t2i.encoders.pretrained.vision import load_vision
from t2i.errors import UserError
from t2i.metrics import floors, nearest, vendi
from t2i.metrics.networks import Settings, trunk
from t2i.metrics.prdc import equally_many
from t2i.metrics.sources import Reference


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- networks


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """Weights of a small network of timm, and itself."""
    file = tmp_path_factory.mktemp("timm") / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("resnet10t", num_classes=0).eval()
    torch.save(network.state_dict(), file)
    return f"timm:resnet10t/{file}", network


LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY = LAYERS | {"hidden_size": 24, "image_size": 28, "patch_size": 14}
CONVOLUTIONS = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
TOWERS = {"vision_config": TINY, "text_config": LAYERS | {"hidden_size": 16}, "projection_dim": 12}
KINDS = {
    "dinov2": (transformers.Dinov2Config(**TINY), transformers.Dinov2Model),
    "vit": (transformers.ViTConfig(**TINY), transformers.ViTModel),
    "convnext": (transformers.ConvNextConfig(**CONVOLUTIONS), transformers.ConvNextModel),
    "clip": (transformers.CLIPConfig(**TOWERS), transformers.CLIPModel),
}


@pytest.fixture(scope="module", params=KINDS)
def hugging_face(request, tmp_path_factory):
    """A small image model without training, and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    config, cls = KINDS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = cls(config).eval()
    network.save_pretrained(folder)
    processor = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return request.param, network, folder


@torch.no_grad()
def test_an_image_model_of_hugging_face_sees_what_it_sees_there(hugging_face):
    kind, network, folder = hugging_face
    side = 64 if kind == "convnext" else 28
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pixels = ((image + 1) / 2 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.2
    ours = load_vision(f"hf:{folder}", side)
    if kind == "clip":
        expected = network.get_image_features(pixel_values=pixels).pooler_output
    else:
        expected = network(pixel_values=pixels).pooler_output.flatten(1)
    torch.testing.assert_close(ours.features(image), expected)
    assert not any(p.requires_grad for p in ours.parameters())
    larger = load_vision(f"hf:{folder}", 2 * side)
    assert larger.features(image).shape == expected.shape
    torch.testing.assert_close(larger.features(image), larger.features(resample(image, 2 * side)))


@torch.no_grad()
def test_a_model_without_a_trained_pooler_gives_its_first_token(tmp_path):
    network = transformers.ViTModel(KINDS["vit"][0], add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    image = torch.rand(2, 3, 28, 28) * 2 - 1
    expected = network(pixel_values=image).last_hidden_state[:, 0]
    torch.testing.assert_close(load_vision(f"hf:{tmp_path}", 28).features(image), expected)


@torch.no_grad()
def test_dinov2_of_timm_gives_its_first_token_at_another_size(tmp_path):
    """As dgm-eval takes it (Stein et al. 2023); its file's position codes are of 518 pixels."""
    network = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()
    file = tmp_path / "dino.pth"
    torch.save(network.state_dict(), file)
    ours = trunks.load_trunk(f"timm:vit_small_patch14_dinov2/{file}", size=56)
    image = torch.rand(1, 3, 56, 56) * 2 - 1
    small = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=56)
    small.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(network.state_dict(), small))
    pixels = (image + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    pixels = pixels / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = small.eval().forward_features(pixels)[:, 0]
    torch.testing.assert_close(ours.features(image), expected, atol=1e-4, rtol=1e-4)


def test_the_judge_says_its_network_and_the_side_it_sees(resnet):
    name, network = resnet
    judge = trunk.load(Settings({"trunk": name, "trunk_size": "64"}), "cpu")
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = (torch.tensor(network.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected = network(((resample(image, 64) + 1) / 2 - mean) / std)
    torch.testing.assert_close(judge.see(image, [0, 1])["trunk"], expected, atol=1e-4, rtol=1e-4)
    assert judge.fingerprint.startswith("timm:resnet10t ")
    assert judge.fingerprint.endswith(" 64 pixels")
    assert "weights.pth" not in judge.fingerprint, "the same weights elsewhere are the same judge"
    assert trunk.named(Settings()) == ("efficientnet-lite2", 160)
    assert trunk.named(Settings({"trunk": "timm:resnet10t"})) == ("timm:resnet10t", 224)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trunk": "hf:/nowhere"}, "trunk 'hf:/nowhere': no such folder"),
        ({"trunk": "efficientnet-lite9"}, "did you mean"),
        ({"trunk": "timm:resnet10t/absent.pth"}, "absent.pth"),
        ({"trunk_size": "wide"}, "--trunk-size wide: a side in pixels"),
    ],
)
def test_mistakes_are_one_line(given, said):
    with pytest.raises(UserError, match=said) as caught:
        trunk.load(Settings(given), "cpu")
    assert "\n" not in str(caught.value)


def test_a_size_that_a_network_refuses_is_one_line(tmp_path):
    torch.save(timm.create_model("swin_tiny_patch4_window7_224").state_dict(), tmp_path / "s.pth")
    name = f"timm:swin_tiny_patch4_window7_224/{tmp_path / 's.pth'}"
    with pytest.raises(UserError, match=r"takes no pictures of 100×100 .*--trunk-size"):
        trunk.load(Settings({"trunk": name, "trunk_size": "100"}), "cpu")


def test_a_text_model_is_refused(tmp_path):
    transformers.BertModel(transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20
    )).save_pretrained(tmp_path)  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(UserError, match="bert reads no pictures"):
        load_vision(f"hf:{tmp_path}", 28)


# --- scores, through the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty-five pictures of 16×16."""
    out = tmp_path_factory.mktemp("pictures")
    pixels = (normal(0, 25, 16, 16, 3) * 40 + 120).clamp(0, 255).to(torch.uint8).numpy()
    for n, picture in enumerate(pixels):
        Image.fromarray(picture).save(out / f"{n}.png")
    return out, pixels


@pytest.fixture(scope="module")
def scored(resnet, folder, tiny_shards, tmp_path_factory):
    """What the command says, and the features it must have seen."""
    name, network = resnet
    result = command(
        "--pictures", folder[0], "--reference", tiny_shards, "--metrics", "kd,fd,prdc_trunk,vendi", "--trunk", name,
        "--trunk-size", 32, out=tmp_path_factory.mktemp("scores") / "a.json",
    )  # fmt: skip
    mean, std = (torch.tensor(network.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    reference = Reference(str(tiny_shards))
    fake = torch.from_numpy(folder[1]).permute(0, 3, 1, 2).float() / 127.5 - 1
    see = lambda x: network(((resample(x, 32) + 1) / 2 - mean) / std).double()
    with torch.no_grad():
        return result, see(fake), see(reference.pick(range(reference.count)))


def test_kd_is_torchmetrics_and_torch_fidelitys_of_the_same_features(scored):
    from torch_fidelity.metric_kid import kernel_poly, mmd2
    from torchmetrics.image.kid import poly_mmd

    from t2i.metrics import kid

    result, fake, real = scored
    assert result["protocol"]["metric kd"] == {"version": 1, "subsets": 100, "size": 25}
    with pytest.warns(UserWarning, match="kd: subsets of 25"):
        ours = float(kid.compute(fake, real, name="kd")["kd"].mean())
    assert result["scores"]["kd"] == pytest.approx(ours, rel=1e-3)
    low, high = result["intervals"]["kd"]
    assert low < ours < high
    a, b = fake, real[:25]
    assert kid.mmd(a, b) == pytest.approx(float(poly_mmd(a, b)), rel=1e-6)
    k = lambda x, y: kernel_poly(x.numpy(), y.numpy(), kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1)
    assert kid.mmd(a, b) == pytest.approx(mmd2(k(a, a), k(a, b), k(b, b)), rel=1e-6)


def test_fd_is_torch_fidelitys_of_the_same_features(scored):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    result, *sets = scored
    expected = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in sets), verbose=False)
    assert result["scores"]["fd"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert any("fd: 25 pictures but 512 features" in note for note in result["notes"])
    assert "fd" not in result["intervals"]


def test_precision_and_recall_take_equally_many_and_are_the_prdc_packages(scored):
    theirs = pytest.importorskip("prdc", reason="prdc, of the dev extra, is not installed")
    result, fake, real = scored
    assert (len(fake), len(real)) == (25, 40)
    settings = result["protocol"]["metric prdc_trunk"]
    assert settings == {"version": 1, "k": 5, "of each": 25, "features": "of unit length"}
    unit = lambda x: torch.nn.functional.normalize(x, dim=1).numpy()
    fake, real = equally_many(fake, real, 0)
    expected = theirs.compute_prdc(unit(real), unit(fake), 5)
    ours = {k.removeprefix("trunk_"): v for k, v in result["scores"].items() if k.startswith("trunk_")}
    assert ours == pytest.approx(expected, abs=1e-6)


def test_vendi_is_the_vendi_packages_of_equally_many(scored):
    theirs = pytest.importorskip("vendi_score.vendi", reason="vendi-score, of the dev extra, is not installed")
    result, fake, real = scored
    fake, real = equally_many(fake, real, 0)
    for prefix, x in (("", fake), ("real_", real)):
        kernel = torch.nn.functional.normalize(x, dim=1)
        kernel = (kernel @ kernel.T).numpy()
        for q, name in ((1, "vendi"), (0.5, "vendi_0.5"), (2, "vendi_2"), ("inf", "vendi_inf")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
                expected = theirs.score_K(kernel, q=q)
            assert result["scores"][prefix + name] == pytest.approx(expected, rel=1e-3)
    assert result["protocol"]["metric vendi"]["of each"] == 25


def test_vendi_counts_what_differs():
    assert vendi.compute(torch.eye(7)) == pytest.approx({1: 7, 0.5: 7, 2: 7, math.inf: 7})
    assert vendi.compute(torch.ones(9, 4)) == pytest.approx({1: 1, 0.5: 1, 2: 1, math.inf: 1})
    uneven = vendi.compute(torch.eye(2)[[0, 0, 0, 1]])  # shares 3/4 and 1/4
    assert uneven[2] == pytest.approx(1 / (9 / 16 + 1 / 16))
    assert uneven[math.inf] == pytest.approx(4 / 3)
    assert uneven[1] == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    many, few = normal(0, 400, 300), normal(0, 400, 300)[:50]
    assert vendi.compute(few)[1] < vendi.compute(many)[1], "it grows with the count: the bias that the module tells of"


# --- floors


def test_spoilt_pictures_are_what_their_kind_says():
    images = (normal(0, 3, 3, 16, 16) / 3).clamp(-1, 1).float()
    kinds = {kind: floors.spoilt(images, kind, [4, 5, 6]) for kind in floors.KINDS}
    assert torch.equal(kinds["real"], images)
    flat, shuffled, noise = kinds["flat colour"], kinds["shuffled pixels"], kinds["noise"]
    assert torch.equal(flat[:, :, 0, 0], images.mean((2, 3)))
    assert flat.flatten(2).std(2).max() < 1e-6
    joined = lambda x: sorted(map(tuple, x.flatten(1).T.tolist()))  # colours, wherever they are
    assert joined(shuffled[1]) == joined(images[1])
    assert not torch.equal(shuffled[1], images[1])
    assert torch.equal(noise[1:2], floors.spoilt(images[:1], "noise", [5])), "by a picture's own seed"
    spread = [kinds[f"blurred by {n}"].std() for n in (1, 2, 4)]
    # σ of 1 pixel of 64 is a quarter of a pixel here, and does little
    assert images.std() >= spread[0] > spread[1] > spread[2]


def test_floors_are_told_by_the_command(resnet, tiny_shards, tmp_path, capsys):
    result = command(
        "--floors", tiny_shards, "--reference", tiny_shards, "--metrics", "kd,prdc_trunk", "--trunk", resnet[0],
        "--trunk-size", 32, "--samples", 20, out=tmp_path / "f.json",
    )  # fmt: skip
    assert list(result["floors"]) == list(floors.KINDS)
    kd = {kind: scores["kd"] for kind, scores in result["floors"].items()}
    assert kd["real"] < kd["blurred by 4"]
    assert kd["real"] < kd["noise"]
    assert result["protocol"]["samples"] == 20
    shown = capsys.readouterr().out
    assert all(any(line.startswith(kind) for line in shown.splitlines()) for kind in floors.KINDS)


# --- nearest training pictures


def test_nearest_by_hand():
    """On the unit circle: training at 0°, 10° and 90°; held out at odd places; a fake at 1° and one at 45°."""
    at = lambda *degrees: torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])
    chord = lambda d: 2 * math.sin(math.radians(d) / 2)
    held_out = at(*[120 + 5 * n for n in range(20)])
    rows = nearest.compute(5 * at(1, 45), held_out, 3 * at(0, 10, 90))  # lengths say nothing
    assert rows["nearest"].tolist() == pytest.approx([chord(1), chord(35)])
    assert rows["nearest_copies"].tolist() == [1, 0] if chord(35) > chord(30) else [1, 1]
    # 0° has 10° beside it, farther than the fake at 1°; 10° has 0°, nearer than the fake at 45°.
    assert rows["nearest_authentic"].tolist() == [0, 1]
    far, numbers = nearest.neighbours(at(1.0), at(0, 10, 90), 2)
    assert numbers.tolist() == [[0, 1]]
    assert far[0].tolist() == pytest.approx([chord(1), chord(9)], rel=1e-5)
    with pytest.raises(UserError, match="20 or more"):
        nearest.compute(at(1), held_out[:19], at(0, 1))


def test_authenticity_is_that_of_the_published_code():
    """alaa-lab's evaluation: the distance from a fake to its nearest real, against that real's own nearest real."""
    from sklearn.neighbors import NearestNeighbors

    fake, held_out, training = normal(0, 30, 4), normal(1, 25, 4), normal(2, 60, 4)
    unit = lambda x: torch.nn.functional.normalize(x, dim=1).numpy()
    real = unit(training)
    own = NearestNeighbors(n_neighbors=2).fit(real).kneighbors(real)[0][:, 1]
    far, number = NearestNeighbors(n_neighbors=1).fit(real).kneighbors(unit(fake))
    expected = own[number[:, 0]] < far[:, 0]
    rows = nearest.compute(fake, held_out, training)
    assert np.array_equal(rows["nearest_authentic"].bool().numpy(), expected)
    assert rows["nearest"].numpy() == pytest.approx(far[:, 0], abs=1e-7)


def test_a_copied_training_set_is_found_and_shown(resnet, tiny_shards, tmp_path, capsys):
    """The judged pictures are training pictures."""
    training = Reference(str(tiny_shards))
    pixels = ((training.pick(range(12)) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for n, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{n}.png")
    ask = ["--pictures", tmp_path, "--reference", tiny_shards, "--trunk", resnet[0], "--trunk-size", 32]
    with pytest.raises(UserError, match="--training SHARDS"):
        command(*ask, "--nearest", tmp_path / "out" / "n.png", out=tmp_path / "n.json")
    result = command(
        *ask, "--training", tiny_shards, "--nearest", tmp_path / "out" / "n.png", out=tmp_path / "n.json"
    )  # fmt: skip
    assert result["scores"]["nearest"] == pytest.approx(0, abs=1e-3)
    assert result["scores"]["nearest_authentic"] == 0
    assert "40 of the 40 reference pictures are in the training shards" in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "n.png") as image:
        assert image.width == 6 * 128 + 5 * 2
        left, right = image.crop((0, 20, 128, 140)), image.crop((130, 20, 258, 140))
        assert np.abs(np.asarray(left).astype(int) - np.asarray(right).astype(int)).max() <= 1
