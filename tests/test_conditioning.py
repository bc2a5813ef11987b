"""A batch → its Text: noise, pictures in place of captions, stored features in place of computed ones."""

import json
import math
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
import torch
import torch.nn.functional as F

from t2i import checkpoint, conditioning, config, step
from t2i.conditioning import Perturbation, condition, with_noise
from t2i.data import coco
from t2i.data.features import Features
from t2i.data.loader import Loader
from t2i.data.manifest import Options
from t2i.data.write import write_shards
from t2i.encoders.clip import Clip, load_clip
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.rng import Rng

SETTINGS = ["train.batch=4", "data.workers=0", "train.precision=fp32"]


def run_of(*settings: str, losses: bool = True):
    off = [] if losses else [f"loss.{n}.weight=0" for n in ("img_txt_clip", "img_txt_d", "r1")]
    return conftest.build_here(*SETTINGS, *off, *settings)


def batch_of(count: int = 4) -> Batch:
    image = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    first = [f"a {color} bus" for color in ("red", "blue", "green", "white")][:count]
    return Batch(image, first, torch.arange(count), [f"{c} on a road" for c in first])


# --- noise


def test_noise_by_hand():
    # 0.9·(1, 0) + 0.1·(0, 5)/5 = (0.9, 0.1), of length √0.82
    noisy = with_noise(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]), 0.1)
    torch.testing.assert_close(noisy, torch.tensor([[0.9, 0.1]]) / math.sqrt(0.82))


def test_noise_on_captions():
    plain, noisy = run_of(losses=False), run_of("text.noise=0.1", losses=False)
    batch = batch_of()
    clean = condition(plain, batch, plain.rng(2, 0))
    assert clean.sentence.equal(plain.text_encoder(batch.captions).sentence)
    text = condition(noisy, batch, noisy.rng(2, 0))
    torch.testing.assert_close(text.sentence.norm(dim=1), torch.ones(4))
    cosine = (text.sentence * clean.sentence).sum(1)
    assert 0.97 < cosine.min() < cosine.max() < 1  # 0.9 / √0.82 = 0.994 at a right angle
    assert text.words.equal(clean.words)
    assert condition(noisy, batch, noisy.rng(2, 0)).sentence.equal(text.sentence)
    assert not condition(noisy, batch, noisy.rng(2, 1)).sentence.equal(text.sentence)
    # Two processes draw for their rows what one draws for all.
    noise = lambda rank: Rng(0, 0, 2, 0, rank=rank, world=2)
    for rank in range(2):
        part = Batch(batch.image[rank::2], batch.captions[rank::2], batch.image_id[rank::2])
        torch.testing.assert_close(condition(noisy, part, noise(rank)).sentence, text.sentence[rank::2])


# --- pictures in place of captions


def test_lafite_g_needs_no_captions():
    run, batch = run_of("text.source=image", "text.noise=0.75", losses=False), batch_of()
    run.text_encoder.forward = None  # calling it would fail
    text = condition(run, batch, run.rng(2, 0))
    features = run.encoders["clip"].features(batch.image)
    epsilon = F.normalize(run.rng(2, 0).randn(4, run.text_encoder.dim), dim=1)
    torch.testing.assert_close(text.sentence, F.normalize(0.25 * features + 0.75 * epsilon, dim=1))
    assert not text.sentence.requires_grad
    second = condition(run, batch, run.rng(1, 0), second=True)
    assert not second.sentence.equal(text.sentence)


def test_the_learnt_perturbation():
    torch.manual_seed(0)
    perturb, noise = Perturbation(64), torch.randn(500, 64)
    assert [tuple(p.shape) for p in perturb.mean.parameters() if p.dim() == 2] == [
        (128, 64), (128, 128), (128, 128), (64, 128)
    ]  # fmt: skip
    feature = F.normalize(torch.randn(500, 64), dim=1)
    out = perturb(feature, noise)
    torch.testing.assert_close(out, F.normalize(feature + noise / 8, dim=1))  # 1/√64 in every direction
    with torch.no_grad():
        perturb.mean[-1].bias.add_(2 * feature[0])
        perturb.scale[-1].bias.fill_(-20)
    torch.testing.assert_close(perturb(feature[:1], noise[:1]), feature[:1])  # (1 + 2) f, no noise left


def test_lafite_nn_learns_with_the_generator_and_is_kept(tmp_path):
    settings = ("text.source=image_nn", f"runs={tmp_path}")
    run, batch = run_of(*settings), batch_of()
    owned = {id(p) for group in run.g_optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in [*run.G.parameters(), *run.perturb.parameters()]}
    before = {k: v.clone() for k, v in run.perturb.state_dict().items()}
    for _ in range(2):
        step.train_step([batch], run)
    after = run.perturb.state_dict()
    assert all(not after[k].equal(before[k]) for k in before), "the zero layers let the others learn from step 2 on"
    folder = checkpoint.save(run, tmp_path / "a")
    again = run_of(*settings)
    checkpoint.load(again, folder)
    assert all(after[k].equal(v) for k, v in again.perturb.state_dict().items())
    assert not any("perturb" in k for k in run.G_ema.state_dict())
    expected, got = step.train_step([batch], run), step.train_step([batch], again)
    assert all(expected[k].equal(got[k]) for k in expected)
    with pytest.raises(UserError, match="does not fit"):
        checkpoint.load(run_of("text.source=image"), folder)


def test_the_discriminator_teaches_the_perturbation_nothing(monkeypatch):
    run, taught = run_of("text.source=image_nn"), []
    update = step.update

    def noting(optimizer, *rest):
        taught.append(any(p.grad is not None for p in run.perturb.parameters()))
        return update(optimizer, *rest)

    monkeypatch.setattr(step, "update", noting)
    step.train_step([batch_of()], run)
    assert taught == [False, True]


def test_words_need_captions():
    run = run_of("text.source=image", losses=False)
    run.config.generator.word_attention = [16]
    with pytest.raises(UserError, match=r"text\.source=image: .*word"):
        conditioning.check(run, SimpleNamespace(fields=set()))


# --- stored features


@pytest.fixture(scope="module")
def featured(tmp_path_factory, tiny_shards) -> Path:
    """The tiny shards' pictures with their features by scenes-clip, through make_shards' own code."""
    from t2i.data.samples import Samples

    root = tmp_path_factory.mktemp("featured")
    (root / "images").mkdir()
    samples, pictures = Samples(str(tiny_shards)), []
    for i in range(24):
        sample = samples.read(i)
        (root / "images" / f"{i}.jpg").write_bytes(sample.coded.numpy().tobytes())
        pictures.append(coco.Picture(i, f"{i}.jpg", tuple(sample.captions[: 3 + i % 3])))
    encode = Features(load_text_encoder("scenes-clip"), load_clip("scenes-clip"))
    options = Options(size=16, per_shard=10, clip=encode.fingerprint)
    write_shards(coco.Annotations("", pictures), root / "images", root / "out", options, {}, encode=encode)
    return root / "out"


def test_stored_features_are_those_computed(featured):
    """Of the drawn caption, of both captions, and of the picture as it is shown."""
    run = run_of("text.noise=0.1", f"data.shards={featured}")
    loader = Loader(str(featured), 8, workers=1, mirror=True, two_captions=True)
    conditioning.check(run, loader)
    assert loader.fields == {"clip_image", "clip_text"}
    for batch in islice(iter(loader), 4):
        plain = Batch(batch.image, batch.captions, batch.image_id, batch.captions2)
        for second in (False, True):
            one, two = (condition(run, b, run.rng(2, 0), second).sentence for b in (batch, plain))
            torch.testing.assert_close(one, two, atol=1e-3, rtol=0)
        one, two = (conditioning.image_features(run, b) for b in (batch, plain))
        torch.testing.assert_close(one, two, atol=2e-3, rtol=0)  # a mirrored JPEG is mirrored after decoding
        assert (one - run.encoders["clip"].features(batch.image.flip(-1))).abs().max() > 0.02


def test_what_has_changed_is_computed(featured):
    run = run_of(f"data.shards={featured}")
    loader = Loader(str(featured), 4, workers=0, word_dropout=0.5)
    conditioning.check(run, loader)
    batch = next(iter(loader))
    assert set(batch.extra) == {"clip_image"}
    assert condition(run, batch, run.rng(2, 0)).sentence.equal(run.text_encoder(batch.captions).sentence)
    run.config.generator.word_attention = [16]  # words are not stored
    loader = Loader(str(featured), 4, workers=0)
    conditioning.check(run, loader)
    assert set(next(iter(loader)).extra) == {"clip_image"}


def train_here(monkeypatch, *settings: str) -> dict[str, torch.Tensor]:
    """Trains by the command, in this process, and returns the last checkpoint's state."""
    conftest.train_here(monkeypatch, *conftest.TINY, *SETTINGS, "log.every=1", "log.grid=2", *settings)
    made = config.load(None, [s for s in settings if s.startswith(("runs", "name"))])
    newest = checkpoint.folders(Path(made.runs) / made.name)[-1]
    return torch.load(newest / "state.pt", weights_only=True)


def test_training_without_captions_from_stored_features(featured, tmp_path, monkeypatch):
    settings = [f"data.shards={featured}", f"runs={tmp_path}", "text.source=image_nn", "data.mirror=true"]
    settings += ["loss.img_txt_clip.weight=0", "generator.style_mixing=0"]
    with monkeypatch.context() as patch:  # nothing is left for CLIP's picture side to do
        patch.setattr(Clip, "features", None)
        whole = train_here(monkeypatch, *settings, "name=whole", "train.kimg=0.012")
        train_here(monkeypatch, *settings, "name=parts", "train.kimg=0.008")
        parts = train_here(monkeypatch, *settings, "name=parts", "train.kimg=0.012")
    for key in ("G", "D", "perturb"):
        assert all(whole[key][k].equal(v) for k, v in parts[key].items()), key
    other = ["encoders.text=scenes-clip-score", "encoders.clip=scenes-clip-score"]
    with pytest.raises(UserError, match="features of another CLIP"):
        train_here(monkeypatch, *settings, *other, "name=other", "train.kimg=0.004")


def test_features_of_another_encoder_are_refused(featured):
    other = ("encoders.text=scenes-clip-score", "encoders.clip=scenes-clip-score", f"data.shards={featured}")
    with pytest.raises(UserError, match=r"features of another CLIP .*--clip scenes-clip-score.*encoders\.stored=false"):
        conditioning.check(run_of(*other), Loader(str(featured), 4, workers=0))
    loader = Loader(str(featured), 4, workers=0)
    conditioning.check(run_of(*other, "encoders.stored=false"), loader)
    assert next(iter(loader)).extra == {}
    # Captions read by one encoder, guided by the CLIP of the shards: only what fits each is used.
    loader = Loader(str(featured), 4, workers=0)
    conditioning.check(run_of("encoders.text=scenes-clip-score", f"data.shards={featured}"), loader)
    assert loader.fields == {"clip_image"}


def test_features_of_unknown_origin_are_refused(featured, tmp_path):
    tar = tmp_path / "shard-000000.tar"
    tar.write_bytes((featured / tar.name).read_bytes())
    with pytest.raises(UserError, match="do not name one encoder"):
        conditioning.check(run_of(), Loader(str(tmp_path), 4, workers=0))


def test_fingerprints_follow_the_weights(tmp_path):
    from t2i.encoders import pretrained

    here, there = load_clip("scenes-clip").text.model, pretrained.ASSETS / "scenes-clip"
    for file in there.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load_clip(str(tmp_path)).text.model.fingerprint == here.fingerprint  # whatever its name
    settings = json.loads((tmp_path / "open_clip_config.json").read_text())
    settings["preprocess_cfg"] = settings.get("preprocess_cfg", {}) | {"mean": [0.1, 0.2, 0.3]}
    other = tmp_path / "other"
    other.mkdir()
    for file in there.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "open_clip_config.json").write_text(json.dumps(settings))
    assert load_clip(str(other)).text.model.fingerprint != here.fingerprint
    assert load_clip("scenes-clip-score").text.model.fingerprint != here.fingerprint
