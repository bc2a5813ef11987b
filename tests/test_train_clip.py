"""scripts/train_clip.py: from shards to a folder that open_clip and the encoders read."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_encoders import SMALL, words

from t2i.encoders.clip import load_clip
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.fit import clip as fit
from t2i.fit.options import ClipOptions
from t2i.interfaces import Batch
from t2i.losses.contrastive import info_nce

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_clip.py"
_spec = importlib.util.spec_from_file_location("train_clip", SCRIPT)
train_clip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(train_clip)
DEVICE = torch.device("cpu")

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
    rates = [fit.learning_rate(step, 100) for step in range(101)]
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
    ],
)
def test_mistakes(arguments, says, tiny_shards, tmp_path, monkeypatch):
    common = ["--shards", tiny_shards, "--val", tiny_shards, *SMALLEST, "--out", tmp_path / "out"]
    with pytest.raises(UserError, match=says):
        command(monkeypatch, *common, *arguments)
    assert not (tmp_path / "out").exists()
