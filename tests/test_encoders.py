"""The frozen encoders: text, CLIP's image features, VGG, and the distance of VGG features."""

import hashlib
import json
import math
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import open_clip
import pytest
import torch
import torch.nn.functional as F
import torchvision
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from t2i import encoders
from t2i.config import Encoders
from t2i.encoders import pretrained, vgg
from t2i.encoders.clip import load_clip, resample
from t2i.encoders.frozen import Frozen
from t2i.encoders.pretrained import folder, vocabulary
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.encoders.text import TextEncoder, load_text_encoder
from t2i.encoders.vgg import Vgg, load_vgg
from t2i.errors import UserError
from t2i.files import download
from t2i.metrics import vgg as vgg_distance
from t2i.rng import Rng
from t2i.worlds import scenes

SHARED = Path(__file__).parents[2] / "shared"
OPEN_CLIP = open_clip.tokenizer.SimpleTokenizer()
CAPTIONS = ["a green train", "a red bus driving down the street", ""]
ARCH = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Weights of a tiny architecture that open_clip is told of."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "t2i-tiny.json").write_text(json.dumps(ARCH))
    open_clip.add_model_config(folder / "t2i-tiny.json")
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**ARCH).state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


def words(folder: Path) -> dict[str, int]:
    """A word-level tokenizer in `folder`; returns its vocabulary."""
    known = ["<pad>", "<unk>", "<s>", "</s>", "a", "green", "red", "train", "bus", "driving", "down", "the", "street"]
    vocabulary = {word: i for i, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        cls_token="<s>", sep_token="</s>", model_max_length=9,
    ).save_pretrained(folder)  # fmt: skip
    return vocabulary


SMALL = {"vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CLIP_TEXT = SMALL | {"max_position_embeddings": 9, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def hugging_face(kind: str, folder: Path) -> str:
    """A tiny model with random weights, as `save_pretrained` leaves it."""
    torch.manual_seed(0)
    if kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**SMALL, max_position_embeddings=9))
    elif kind == "t5":
        config = transformers.T5Config(
            vocab_size=13, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        model = transformers.T5EncoderModel(config)
    elif kind == "bart":
        config = transformers.BartConfig(
            vocab_size=13, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=9,
            pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=3,
        )  # fmt: skip
        model = transformers.BartModel(config)
    elif kind == "clip text":
        model = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP_TEXT, projection_dim=6))
    else:
        vision = {"image_size": 32, "patch_size": 16, "hidden_size": 8, "num_hidden_layers": 1,
                  "num_attention_heads": 2, "intermediate_size": 16}  # fmt: skip
        config = transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=vision, projection_dim=6)
        model = transformers.CLIPModel(config)
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3],
                        "image_std": [0.4, 0.5, 0.6], "size": {"shortest_edge": 32}})
        )  # fmt: skip
    model.save_pretrained(folder)
    words(folder)
    return f"hf:{folder}"


def check_text(encoder: TextEncoder, counts: list[int]) -> None:
    """What every text encoder promises; counts: words of each of CAPTIONS."""
    text = encoder(CAPTIONS)
    assert text.sentence.shape == (3, encoder.dim)
    assert text.words.shape[:2] == text.mask.shape == (3, encoder.max_words)
    assert text.sentence.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert text.mask.sum(1).tolist() == counts
    assert text.sentence.dtype == text.words.dtype == torch.float32
    assert text.mask.dtype == torch.bool
    assert not text.sentence.requires_grad
    assert not text.words.requires_grad
    assert not torch.allclose(text.sentence[0], text.sentence[1], atol=1e-3)
    alone = encoder(CAPTIONS[:1])  # the other rows, and their length, change nothing
    torch.testing.assert_close(alone.sentence, text.sentence[:1])
    torch.testing.assert_close(alone.words[alone.mask], text.words[:1][text.mask[:1]])
    assert alone.mask.equal(text.mask[:1])


def check_frozen(module: nn.Module) -> None:
    module.train()
    assert not any(m.training for m in module.modules())
    assert not any(p.requires_grad for p in module.parameters())


# --- text


@pytest.mark.parametrize("kind", ["bert", "t5", "bart", "clip", "clip text"])
def test_hugging_face_text(kind, tmp_path):
    encoder = load_text_encoder(hugging_face(kind, tmp_path))
    check_text(encoder, [3, 7, 1])
    check_frozen(encoder)
    assert encoder.max_words == 9
    assert encoder.dim == (6 if "clip" in kind else 8)
    assert encoder.cut("a green train") is None
    assert encoder.cut("a green train driving down the street") is None
    assert encoder.cut("a green train driving down the street a second bus") == "a second bus"


def test_bert_sentence_is_the_mean_over_all_tokens(tmp_path):
    encoder = load_text_encoder(hugging_face("bert", tmp_path))
    model = transformers.BertModel.from_pretrained(tmp_path)
    with torch.no_grad():
        hidden = model.eval()(input_ids=torch.tensor([[2, 4, 5, 7, 3]])).last_hidden_state[0]  # <s> a green train </s>
    text = encoder(["a green train", "a red bus driving down the street"])
    torch.testing.assert_close(text.sentence[0], F.normalize(hidden.mean(0), dim=0))
    torch.testing.assert_close(text.words[0, 1:4], hidden[1:4])
    assert text.mask[0].tolist() == [False, True, True, True, False, False, False, False, False]


def test_hugging_face_clip_reads_pictures(tmp_path):
    clip = load_clip(hugging_face("clip", tmp_path))
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    expected = model.get_image_features(pixel_values=((image + 1) / 2 - mean) / std).pooler_output
    torch.testing.assert_close(clip.features(image), F.normalize(expected, dim=1))


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    name = hugging_face("clip text", tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "text_projection" not in k}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"lack text_projection\.weight"):
        load_text_encoder(name)


def test_open_clip_weight_file(tiny):
    encoder = load_text_encoder(f"open_clip:t2i-tiny/{tiny}")
    check_text(encoder, [3, 7, 1])
    check_frozen(encoder)
    assert (encoder.dim, encoder.max_words) == (12, 16)
    long = " ".join(["train"] * 14)
    assert encoder.cut(long) is None
    assert encoder.cut(long + " A\tgreen Bus") == "A green Bus"
    network = open_clip.create_model("t2i-tiny", pretrained=str(tiny)).eval()
    with torch.no_grad():
        expected = network.encode_text(open_clip.get_tokenizer("t2i-tiny")(CAPTIONS), normalize=True)
    torch.testing.assert_close(encoder(CAPTIONS).sentence, expected)


def test_one_caption_may_be_a_plain_string():
    encoder = load_text_encoder("scenes-clip")
    assert encoder("a green train").sentence.equal(encoder(["a green train"]).sentence)


def test_text_and_clip_share_one_network(tiny):
    name = f"open_clip:t2i-tiny/{tiny}"
    assert load_clip(name).text.network is load_text_encoder(name).network


@pytest.mark.parametrize("name", ["scenes-clip"])
def test_shipped_towers_equal_open_clips(name):
    found = pretrained.load(name)
    network = open_clip.create_model(f"local-dir:{pretrained.ASSETS / name}", require_pretrained=True)
    network.eval().requires_grad_(False)
    assert found.network.state_dict().keys() == network.state_dict().keys()
    tokens = found.tokenize(CAPTIONS)
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for half in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            assert found.encode_text(tokens)[0].equal(network.encode_text(tokens.ids))
            assert found.encode_image(image).equal(network.encode_image(image))
    one, two = image.clone().requires_grad_(), image.clone().requires_grad_()
    found.encode_image(one).square().sum().backward()
    network.encode_image(two).square().sum().backward()
    assert one.grad.equal(two.grad)


def test_which_folders_are_plain():
    config = json.loads((pretrained.ASSETS / "scenes-clip" / pretrained.network.CONFIG).read_text())
    assert folder.is_plain(config)
    for tower, more in (("vision_cfg", {"pool_type": "avg"}), ("text_cfg", {"no_causal_mask": True})):
        model = config["model_cfg"] | {tower: config["model_cfg"][tower] | more}
        assert not folder.is_plain(config | {"model_cfg": model})
    assert not folder.is_plain(config | {"model_cfg": config["model_cfg"] | {"quick_gelu": True}})
    assert not folder.is_plain(config | {"preprocess_cfg": {}})
    resnet = json.loads((pretrained.ASSETS / "scenes-clip-score" / pretrained.network.CONFIG).read_text())
    assert not folder.is_plain(resnet)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_byte_pairs_are_open_clips(caption):
    assert vocabulary.encode(caption) == OPEN_CLIP.encode(caption)


def test_byte_pairs_of_words_that_are_special():
    assert vocabulary.byte_pairs().get_vocab() == OPEN_CLIP.encoder
    for caption in (
        "A zebra, two red kites: 3 don't fly!", "x<start_of_text>y <END_OF_TEXT>", "&lt;b&gt; &amp;amp;", "a</w> b",
        "naïve café — it’s “WE’RE” 日本語 🙂🙂 １２ ½ \u1b66\u0c5c",
    ):  # fmt: skip
        assert vocabulary.encode(caption) == OPEN_CLIP.encode(caption)


def test_a_word_that_is_no_token_is_refused():
    with pytest.raises(KeyError, match="zebra zebra"):
        CompactTokenizer(["a</w>", "zebra zebra"], 8)


@pytest.mark.parametrize("asks", [f"load_text_encoder({name!r})" for name in ("scenes-clip", "nowhere")])
def test_the_shipped_encoder_imports_no_large_library(asks):
    code = f"""
import sys
from contextlib import suppress
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
with suppress(UserError):
    {asks}
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"open_clip", "transformers", "timm", "torchvision", "scipy"} & set(done.stdout.split())


def test_compact_vocabulary():
    tokens = collect(["A red train.", "a red bus", "a red train"], min_count=2)
    assert tokens == ["a</w>", "red</w>", "train</w>"]
    tokenizer = CompactTokenizer(tokens, context_length=6)
    # 0 padding, 1-3 the tokens, 4 unknown, 5 start, 6 end
    assert tokenizer(["A RED bus", "train"]).tolist() == [[5, 1, 2, 4, 6, 0], [5, 3, 6, 0, 0, 0]]
    assert tokenizer(["train train train train train red"]).tolist() == [[5, 3, 3, 3, 3, 6]]
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:nobody/nothing", "hf download nobody/nothing"),
        ("open_clip:ViT-B-32/openai", "_model.safetensors is not .*hf download timm/vit_base_patch32_clip_224.openai"),
        ("open_clip:hf-hub:nobody/nothing", "hf download nobody/nothing"),
        ("open_clip:ViT-B-33/openai", "unknown architecture 'ViT-B-33'; the closest are ViT-B-32"),
        ("open_clip:ViT-B-32/openia", "unknown weights 'openia'.* openai"),
        ("open_clip:ViT-B-32//no/such.safetensors", "no such weight file: /no/such.safetensors"),
        ("scene-clip", "did you mean 'scenes-clip'"),
        ("hf:./nowhere", "no such folder"),
        ("open_clip:", "no such folder"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_one_line(name, says, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=says) as caught:
        load_text_encoder(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["hf", "tokenizer of hf", "tower of open_clip", "tokenizer of open_clip"])
def test_a_models_own_code_is_never_run(form, tmp_path):
    kind = "bert" if "open_clip" in form else "t5"
    hugging_face(kind, tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    theirs = {"AutoConfig": "theirs.C", "AutoModel": "theirs.M", "AutoTokenizer": ["theirs.T", "theirs.T"]}
    file = tmp_path / ("tokenizer_config.json" if "tokenizer" in form else "config.json")
    named = {"tokenizer_class": "Theirs"} if "tokenizer" in form else {"model_type": "theirs"}
    file.write_text(json.dumps(json.loads(file.read_text()) | named | {"auto_map": theirs}))
    name = f"hf:{tmp_path}"
    if "open_clip" in form:
        name = str(tmp_path)
        text = {"hf_model_name": "x", "hf_tokenizer_name": "x", "hf_proj_type": "linear", "context_length": 9}
        text["tokenizer_kwargs"] = {"trust_remote_code": True}
        model = {"embed_dim": 12, "vision_cfg": ARCH["vision_cfg"], "text_cfg": text}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
        if "tokenizer" in form:  # it gets that far only with weights that fit
            whole = text | {"hf_model_name": str(tmp_path), "hf_model_pretrained": False}
            del whole["tokenizer_kwargs"]
            network = open_clip.CustomTextCLIP(12, ARCH["vision_cfg"], whole)
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors")
    if "tokenizer" in form:  # transformers has one for such a model itself, and takes that
        load_text_encoder(name)
    else:
        with pytest.raises(UserError, match="code of its own, which is never run") as caught:
            load_text_encoder(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_pickled_weights_are_never_run(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"features.0.weight": Evil()}, tmp_path / "vgg.pt")
    with pytest.raises(UserError, match="cannot be read"):
        load_vgg(str(tmp_path / "vgg.pt"))
    with pytest.raises(UserError, match="cannot be read"):
        load_text_encoder(f"open_clip:ViT-B-32/{tmp_path / 'vgg.pt'}")
    vgg._lpips_heads.cache_clear()
    read, asked = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *args, **options: (asked.append(options), read(*args, **options))[1])
    assert len(vgg._lpips_heads(torch.device("cpu"))) == 5
    assert [options["weights_only"] for options in asked] == [True]
    assert not (tmp_path / "executed").exists()


def test_folders_and_files_that_are_no_encoder_are_refused(tmp_path, tiny):
    with pytest.raises(UserError, match=r"no open_clip_config.json"):
        load_text_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"write hf:{tmp_path}"):
        load_text_encoder(str(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        load_text_encoder(f"hf:{tmp_path}")
    (tmp_path / "weights.pt").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as t2i-tiny") as caught:
        load_text_encoder(f"open_clip:t2i-tiny/{tmp_path / 'weights.pt'}")
    assert "\n" not in str(caught.value)


def test_a_text_model_cannot_guide_pictures(tmp_path):
    with pytest.raises(UserError, match="reads text only"):
        load_clip(hugging_face("bert", tmp_path))


# --- CLIP's pictures


def test_size_mean_and_std(tiny, monkeypatch):
    clip = load_clip(f"open_clip:t2i-tiny/{tiny}")
    seen = []
    monkeypatch.setattr(clip, "encode_image", lambda x: (seen.append(x), x.mean((2, 3)))[1])
    color = torch.tensor([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    features = clip.features(color.expand(2, 3, 48, 48))
    assert seen[0].shape == (2, 3, 32, 32)
    # OpenAI's constants, with which open_clip's own models were trained
    expected = torch.tensor([(1 - 0.48145466) / 0.26862954, (0.5 - 0.4578275) / 0.26130258, -0.40821073 / 0.27577711])
    torch.testing.assert_close(seen[0].mean((2, 3))[0], expected)
    torch.testing.assert_close(features[0], F.normalize(expected, dim=0))


def test_gradient_reaches_the_picture_and_not_the_weights():
    clip = load_clip("scenes-clip", cut_size=0.8)
    image = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    features = clip.features(image, Rng(0))
    assert features.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    (features * clip.text(["a green train", "a red bus"]).sentence).sum().backward()
    assert image.grad is not None
    assert (image.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(p.grad is None for p in clip.parameters())
    check_frozen(clip)


def test_bfloat16_autocast_changes_little():
    clip = load_clip("scenes-clip")
    image = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, text = clip.features(image), clip.text(["a green train"]).sentence
    assert half.dtype == text.dtype == torch.float32
    assert F.cosine_similarity(half, clip.features(image)).min() > 0.99


def test_crops_follow_the_rng_and_differ_by_picture(tiny):
    clip = load_clip(f"open_clip:t2i-tiny/{tiny}", cut_size=0.5)
    image = (torch.rand(1, 3, 40, 40) * 2 - 1).expand(4, -1, -1, -1)
    crops = clip.features(image, Rng(1, 2))
    assert crops.equal(clip.features(image, Rng(1, 2)))
    assert not torch.allclose(crops, clip.features(image, Rng(1, 3)), atol=1e-4)
    assert torch.pdist(crops).min() > 1e-4
    rng = Rng(1, 2)
    assert not torch.allclose(clip.features(image, rng), clip.features(image, rng), atol=1e-4)
    whole = clip.features(image)
    uncut = load_clip(f"open_clip:t2i-tiny/{tiny}")
    torch.testing.assert_close(uncut.features(image, Rng(1, 2)), whole)
    torch.testing.assert_close(whole[0], whole[3])


def test_two_processes_crop_as_one():
    clip = load_clip("scenes-clip", cut_size=0.7)
    image = torch.rand(4, 3, 64, 64) * 2 - 1
    one = clip.features(image, Rng(5))
    two = [clip.features(image[rank::2], Rng(5, rank=rank, world=2)) for rank in range(2)]
    torch.testing.assert_close(torch.stack(two, 1).flatten(0, 1), one)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(8, 80), width=st.integers(8, 80), size=st.integers(8, 40))
def test_resampling_the_whole_is_antialiased_bicubic(height, width, size):
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    expected = F.interpolate(image, (size, size), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(resample(image, size), expected, atol=2e-5, rtol=1e-4)


def test_resampling_a_window():
    # In a picture that is a plane, a window's samples are the plane's values at their places.
    x = (torch.arange(64) + 0.5) / 64
    image = torch.stack([x[:, None].expand(64, 64), x[None].expand(64, 64)])[None]  # [1, 2, 64, 64]: y, x
    out = resample(image, 8, torch.tensor([0.5]), torch.tensor([[0.25, 0.125]]))
    place = (torch.arange(8) + 0.5) / 8 * 0.5
    torch.testing.assert_close(out[0, 0, :, 3], 0.25 + place, atol=1e-5, rtol=0)
    torch.testing.assert_close(out[0, 1, 3], 0.125 + place, atol=1e-5, rtol=0)


def test_resampling_is_twice_differentiable():
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    side, place = torch.tensor([0.8], dtype=torch.float64), torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: resample(x, 4, side, place).square(), image)


def pictures(count: int, **options) -> tuple[torch.Tensor, list[tuple]]:
    """Scenes nobody has seen: [N, 3, 64, 64] in [-1, 1], and the (colour, object) of each."""
    drawn = [scenes.draw(77, i, **options) for i in range(count)]
    small = [torch.frombuffer(bytearray(i.resize((64, 64), 1).tobytes()), dtype=torch.uint8) for i, _, _ in drawn]
    image = torch.stack(small).reshape(-1, 64, 64, 3).permute(0, 3, 1, 2) / 127.5 - 1
    return image, [(plan["objects"][0]["color"], plan["objects"][0]["name"]) for _, _, plan in drawn]


# scenes-clip never saw the held-out pairs; the one that scores did.
@pytest.mark.parametrize(("name", "seen", "held_out"), [("scenes-clip", 0.9, 0.8), ("scenes-clip-score", 0.9, 0.9)])
def test_shipped_clips_tell_colour_and_object(name, seen, held_out):
    clip = load_clip(name)
    pairs = scenes.pairs("all")
    captions = [p for pair in pairs for p, _, _ in scenes.prompts([pair], 8, seed=7)]
    means = clip.text(captions).sentence.unflatten(0, (len(pairs), 8)).mean(1)
    for only_held_out, least in ((False, seen), (True, held_out)):
        image, shown = pictures(120, only_held_out=only_held_out)
        best = (clip.features(image) @ F.normalize(means, dim=1).T).argmax(1).tolist()
        assert sum(pairs[i] == pair for i, pair in zip(best, shown)) / len(shown) >= least


def test_shipped_clips_are_small_and_state_their_accuracy():
    for name in pretrained.SHIPPED:
        folder = pretrained.ASSETS / name
        assert sum(f.stat().st_size for f in folder.iterdir()) < 4e6
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["retrieval"]["image_to_text"]["r@5"] > 0.2
        assert metrics["zero_shot"]["seen"]["both"] > 0.9


# --- by name


TOY = """
import torch
from torch import nn

from t2i.encoders.frozen import Frozen


class Edges(Frozen):
    def __init__(self, width):
        super().__init__(conv=nn.Conv2d(3, width, 3))

    def features(self, image, rng=None):
        return self.conv(image).mean((2, 3))


def load(settings, device, layout):
    return Edges(settings.toy_width).to(device).to(memory_format=layout)
"""


def test_a_file_dropped_in_is_found_by_its_name():
    assert encoders.known() == ["clip", "text", "trunk", "vgg"]
    file = Path(encoders.__file__).with_name("toy_edges.py")
    try:
        file.write_text(TOY)
        assert "toy_edges" in encoders.known()
        network = encoders.load("toy_edges", SimpleNamespace(toy_width=5), "cpu", torch.channels_last)
        check_frozen(network)
        assert network.features(torch.randn(2, 3, 8, 8)).shape == (2, 5)
        with pytest.raises(
            UserError, match="no such frozen network; known: clip, text, toy_edges, trunk, vgg; did you mean"
        ):
            encoders.load("toy_edge", None)
    finally:
        file.unlink(missing_ok=True)
        sys.modules.pop("t2i.encoders.toy_edges", None)


def test_each_is_loaded_by_its_settings(tiny):
    chosen = Encoders(
        text="scenes-clip", clip=f"open_clip:t2i-tiny/{tiny}", vgg="scenes-vgg", vgg_size=32, cut_size=0.5
    )
    text, clip = encoders.load("text", chosen), encoders.load("clip", chosen)
    scenes_vgg = encoders.load("vgg", chosen, layout=torch.channels_last)
    for network in (text, clip, scenes_vgg):
        assert isinstance(network, Frozen)
        check_frozen(network)
    assert (text.name, clip.name, clip.cut_size, scenes_vgg.size) == ("scenes-clip", chosen.clip, 0.5, 32)
    assert scenes_vgg.blocks[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    small = F.interpolate(image, (32, 32), mode="bilinear", antialias=True)
    for name, value in scenes_vgg(small).items():
        assert scenes_vgg.features(image)[name].equal(value)
        assert scenes_vgg.features(image, Rng(0))[name].equal(value)
    assert scenes_vgg(image)["relu1_2"].shape[-1] == 64
    smaller = image[..., :16, :16]
    assert scenes_vgg.features(smaller)["relu1_2"].shape[-1] == 16
    assert load_vgg("scenes-vgg").features(image)["relu1_2"].shape[-1] == 64
    with pytest.raises(NotImplementedError, match="TextEncoder has no features of pictures"):
        text.features(image)


# --- VGG


def random_vgg(*numbers: int) -> dict[str, torch.Tensor]:
    """Weights of narrow convolutions under torchvision's names."""
    torch.manual_seed(0)
    weights, channels = {}, 3
    for n in numbers:
        weights |= {f"features.{n}.weight": torch.randn(4, channels, 3, 3), f"features.{n}.bias": torch.randn(4)}
        channels = 4
    return weights


def test_vgg_layers_follow_the_weights():
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    vgg19 = Vgg(random_vgg(0, 2, 5, 7, 10, 12, 14, 16))
    assert list(vgg19.layers) == ["relu1_2", "relu2_2", "relu3_4"]
    assert [tuple(x.shape) for x in vgg19(image).values()] == [(2, 4, 32, 32), (2, 4, 16, 16), (2, 4, 8, 8)]
    vgg16 = Vgg(random_vgg(0, 2, 5, 7, 10, 12, 14, 17, 19, 21))
    assert list(vgg16.layers) == ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    check_frozen(vgg19)


def test_vgg_equals_torchvisions():
    torch.manual_seed(0)
    original = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=False)
    image = torch.rand(1, 3, 32, 32)
    normal = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    out = Vgg({f"features.{k}": v for k, v in original.state_dict().items()})(image * 2 - 1)
    assert list(out) == ["relu1_1", "relu2_1", "relu3_2", "relu4_2", "relu5_2"]
    with torch.no_grad():
        torch.testing.assert_close(out["relu5_2"], original[:20](normal(image)), rtol=1e-4, atol=1e-6)


def test_caffe_preprocessing():
    # One 3x3 filter a channel that passes the middle pixel of one of the three inputs, with a bias to stay above 0.
    weight = torch.zeros(3, 3, 3, 3)
    weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    vgg = Vgg({"features.0.weight": weight, "features.0.bias": torch.full((3,), 200.0)}, "caffe")
    image = torch.tensor([1.0, 0.0, -0.5]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)  # red 255, green 127.5, blue 63.75
    out = vgg(image)["relu1_1"][0, :, 8, 8]
    torch.testing.assert_close(out, torch.tensor([63.75 - 103.939, 127.5 - 116.779, 255 - 123.68]) + 200)


def test_vgg_mistakes(tmp_path):
    with pytest.raises(UserError, match="caffe, torchvision"):
        Vgg(random_vgg(0), "cafe")
    with pytest.raises(UserError, match=r"features\.0\.weight"):
        Vgg({"conv1.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="no such weight file"):
        load_vgg(str(tmp_path / "none.pt"))
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(UserError, match="cannot be read"):
        load_vgg(str(tmp_path / "bad.pt"))


def test_missing_vgg_weights_say_how_to_fetch_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"curl -L --create-dirs -o .*vgg19-dcbb9e9d\.pth https://"):
        load_vgg("vgg19")


def test_weight_files_are_fetched_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()[:8]
    for name in ("plain.pt", f"net-{right}.pth"):
        download("net", source.as_uri(), tmp_path / "cache" / name)
        assert (tmp_path / "cache" / name).read_bytes() == b"weights"
    assert f"net: fetching {source.as_uri()}" in capsys.readouterr().err
    download("net", "file:///nowhere", tmp_path / "cache" / "plain.pt")  # is there
    for url, name in ((source.as_uri(), "net-00000000.pth"), ("file:///nowhere", "other.pt")):
        with pytest.raises(UserError, match=r"could not be fetched .*curl -L") as caught:
            download("net", url, tmp_path / "cache" / name)
        assert "\n" not in str(caught.value)
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {"plain.pt", f"net-{right}.pth"}
    assert socket.getdefaulttimeout() is None


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="needs the ImageNet weights beside the checkout")
def test_imagenet_vgg_tells_structure_from_noise():
    vgg = load_vgg(str(SHARED / "weights" / "vgg19_keras_imagenet_features_0_16.pt"), "caffe")
    assert vgg.layers == {"relu1_2": 64, "relu2_2": 128, "relu3_4": 256}
    real, _ = pictures(24)
    noisy = (real + 0.3 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    a, b = (vgg_distance.features(x, vgg) for x in (real[:12], real[12:]))
    with pytest.warns(UserWarning, match="VGG: 12 pictures but 448 features"):
        distances = vgg_distance.compute(a, b, vgg.layers)
    assert list(distances) == ["VGG", "VGG relu1_2", "VGG relu2_2", "VGG relu3_4"]
    assert vgg_distance.frechet(vgg_distance.features(noisy[:12], vgg), b) > 2 * distances["VGG"]
    image = real[:1].clone().requires_grad_()
    sum(x.sum() for x in vgg.pooled(image).values()).backward()
    assert image.grad.abs().sum() > 0


# --- the distance of features


def test_frechet_distance_of_normal_distributions():
    # Samples with exactly these means and covariances: ±√1.5 along each axis has covariance I (divisor N - 1 = 3).
    base = math.sqrt(1.5) * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert vgg_distance.frechet(base, base) == pytest.approx(0, abs=1e-9)
    assert vgg_distance.frechet(base, base + torch.tensor([3.0, 4.0])) == pytest.approx(25)
    # N(0, I) and N(0, diag(4, 9)): (2 - 1)² + (3 - 1)² = 5
    assert vgg_distance.frechet(base, base * torch.tensor([2.0, 3.0])) == pytest.approx(5)
    # Not commuting: Tr(Σa + Σb − 2 (Σa Σb)^½) with scipy's matrix root
    from scipy.linalg import sqrtm

    mix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    a, b = base * torch.tensor([2.0, 0.5]), base @ mix
    cov_a, cov_b = torch.diag(torch.tensor([4.0, 0.25], dtype=torch.float64)), mix.T @ mix
    expected = float(cov_a.trace() + cov_b.trace()) - 2 * sqrtm((cov_a @ cov_b).numpy()).trace().real
    assert vgg_distance.frechet(a, b) == pytest.approx(expected)
    assert vgg_distance.frechet(b, a) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(1, 20), st.floats(0.1, 10), st.integers(0, 99))
def test_frechet_distance_scales_and_stays_finite(count, channels, factor, seed):
    rng = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(count, channels, generator=rng, dtype=torch.float64) for _ in range(2))
    distance = vgg_distance.frechet(a, b)
    assert distance >= 0
    assert vgg_distance.frechet(factor * a, factor * b) == pytest.approx(factor**2 * distance, rel=1e-4, abs=1e-6)


def test_features_do_not_depend_on_the_batches():
    vgg = Vgg(random_vgg(0, 2, 5))
    images = torch.rand(7, 3, 16, 16) * 2 - 1
    whole = vgg_distance.features(images, vgg)
    assert (whole.shape, whole.dtype) == ((7, 8), torch.float64)
    torch.testing.assert_close(vgg_distance.features(iter(images.split(3)), vgg), whole, rtol=1e-5, atol=1e-5)
    expected = vgg(images)
    torch.testing.assert_close(whole[:, 4:], expected["relu2_1"].mean((2, 3)).double(), rtol=1e-5, atol=1e-5)


def test_distance_mistakes():
    ok = torch.randn(4, 3)
    for bad in (torch.randn(4, 2), torch.randn(1, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(UserError, match="Fréchet distance"):
            vgg_distance.frechet(ok, bad)
    with pytest.raises(UserError, match="no pictures"):
        vgg_distance.features([], Vgg(random_vgg(0)))


def test_a_vgg_refuses_pictures_that_it_would_pool_to_nothing():
    network = load_vgg("scenes-vgg")
    assert all(x.numel() for x in network.features(torch.zeros(1, 3, 8, 8)).values())
    with pytest.raises(UserError, match=r"encoders\.vgg: .* 4 pixels; .* weight from 8 pixels on"):
        network.features(torch.zeros(1, 3, 4, 4))
