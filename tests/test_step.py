"""What a whole step computes and trains, what of it a checkpoint keeps, and the networks that losses look through."""

import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import build_here
from test_losses import bare_run, views, with_losses
from test_parallel import looks, vgg16_weights

from t2i import checkpoint, config, encoders
from t2i.encoders.vgg import Vgg, lpips_distance
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.losses import TABLE, choose, differentiated_inputs, guidance, total
from t2i.step import train_step
from t2i.views import Views


def build(*changes):
    return build_here("discriminator.mbstd_group=2", "train.batch=4", "loss.r1.weight=0", *changes)


def tiny_batch(seed=0):
    image = torch.rand(4, 3, 16, 16, generator=torch.manual_seed(seed)) * 2 - 1
    captions = ["a red bus", "a dog", "a green train", "a kite"]
    return Batch(image, captions, torch.arange(4), ["a bus", "one dog", "a train", "a kite in the air"])


def calls(monkeypatch, run):
    """Counts of what a step computes."""
    seen = Counter()

    def watch(owner, name, label):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: seen.update([label]) or plain(*a, **k))

    watch(type(run.G), "forward", "G")
    watch(type(run.D), "forward", "D")
    for name, network in run.encoders.items():
        watch(network, "features", name)
    watch(type(run.text_encoder), "forward", "text")
    return seen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.img_txt_clip.weight=0"], {"G": 2, "D": 3, "text": 1}),
        # modified1: d(real) is the D step's, one pass of CLIP and VGG over fakes and over real pictures
        (
            ["loss.img_img_d.weight=1", "loss.img_img_vgg.weight=1", "loss.img_img_clip.weight=1"],
            {"G": 2, "D": 3, "clip": 2, "vgg": 2, "text": 1},
        ),
        # modified2: one more fake
        (["loss.fake_fake.weight=1"], {"G": 3, "D": 3, "clip": 2, "text": 2}),
        # another caption is judged without another pass
        (["loss.matching.weight=1", "loss.matching.fakes=true"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.r1.weight=1", "loss.r2.weight=1", "loss.ma_gp.weight=1"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.word_region.weight=1"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
    ],
)
def test_a_step_computes_what_its_losses_need_and_each_once(monkeypatch, changes, expected):
    run = build(*changes)
    assert run.encoders.keys() == expected.keys() & {"clip", "vgg"}
    assert hasattr(run.D, "regions") == any("word_region" in c for c in changes)
    assert not run.learnt
    with monkeypatch.context() as patched:
        seen = calls(patched, run)
        train_step([tiny_batch()], run)
    assert seen == expected


def test_no_loss_reaches_a_network_that_it_must_not_train():
    """Every term on its own: D's losses leave G alone; those of G leave D, and a learnt temperature, alone."""
    run = build("loss.word_region.weight=1", "loss.img_txt_d.learnable=true", "loss.img_img_vgg.weight=1")
    small, large = run.encoders, run.encoders | {"vgg": looks(Vgg(vgg16_weights()))}
    given = {name: {"weight": 1.0} for name in TABLE} | {"img_txt_d": {"learnable": True}}
    batch, text = tiny_batch(), run.text_encoder(tiny_batch().captions)
    latent = run.G.eval().latent(4, run.rng(0, 0))
    fake = run.G(latent, text)
    fake.image = fake.image.detach()
    for term in choose("discriminator", with_losses(given)):
        v = Views(run, batch, text, latent, fake, run.rng(0, 0), differentiated_inputs([term]))
        total([term], v)[0].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in run.D.parameters()), term.name
        assert all(p.grad is None for p in run.G.parameters()), term.name
        assert all((p.grad is not None) == (term.name == "img_txt_d") for p in run.learnt.parameters()), term.name
        run.D.zero_grad()
        run.learnt.zero_grad()
    run.D.requires_grad_(False)
    run.learnt.requires_grad_(False)
    known = run.D(batch.image, text).embedding
    for term in choose("generator", with_losses(given)):
        v = Views(run, batch, text, latent, run.G(latent, text), run.rng(1, 0), real_embedding=known)
        run.encoders = large if term.name == "lpips" else small
        total([term], v)[0].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in run.G.parameters()), term.name
        assert all(p.grad is None for p in [*run.D.parameters(), *run.learnt.parameters()]), term.name
        run.G.zero_grad()
    assert all(p.grad is None for net in (*small.values(), run.text_encoder) for p in net.parameters())


def test_queues_and_temperatures_survive_a_checkpoint(tmp_path):
    changes = ["loss.img_txt_d.learnable=true", "loss.img_txt_d.queue=6", "loss.img_txt_clip.queue=6"]
    whole = build(*changes)
    for step in range(3):
        if step == 2:
            folder = checkpoint.save(whole, tmp_path)
        train_step([tiny_batch(step)], whole)
    parts = build(*changes)
    checkpoint.load(parts, folder)
    train_step([tiny_batch(2)], parts)
    assert whole.memory.keys() == {"D/img_txt_d", "G/img_txt_d", "img_txt_clip"}
    for name, rows in whole.memory.items():
        assert all(torch.equal(x, parts.memory[name][key]) for key, x in rows.items())
    for a, b in ((whole.D.state_dict(), parts.D.state_dict()), (whole.learnt, parts.learnt)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert whole.learnt["img_txt_d"].exp().item() != pytest.approx(0.1, abs=1e-6)  # it has moved


def test_lafites_published_logit_is_summed_over_the_batch():
    run = build()
    text = run.text_encoder(tiny_batch().captions)
    right = run.D(tiny_batch().image, text)
    run.D.text = "lafite_published"
    published = run.D(tiny_batch().image, text)
    product = (right.embedding * text.sentence).sum(1)
    assert torch.allclose(published.logit, right.logit - product + product.sum(), atol=1e-5)


CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("prefix", ["", "coco256_"])
def test_the_seeds_configurations_add_to_each_other(prefix):
    base, one, two = (config.load(CONFIGS / f"{prefix}{name}.yaml") for name in ("base", "modified1", "modified2"))
    names = lambda c: {t.name for t in choose("generator", c)}
    assert {"adversarial", "img_txt_d", "img_txt_clip"} <= names(base)
    assert names(one) - names(base) == {"img_img_d", "img_img_vgg", "img_img_clip"}
    assert names(two) - names(one) == {"fake_fake"}
    for c in (one, two):
        c.loss, c.name, c.encoders = base.loss, base.name, base.encoders
    assert base == one == two


def test_lpips_is_that_of_its_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that is deprecated
        import lpips

        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    weights, vgg = vgg16_weights(), Vgg(vgg16_weights())
    package.net.load_state_dict({key: weights[f"features.{key.split('.', 1)[1]}"] for key in package.net.state_dict()})
    one, two = torch.rand(2, 2, 3, 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    ours = lpips_distance(vgg(one), vgg(two))
    assert torch.allclose(ours, package(one, two).flatten(), rtol=1e-4)
    v = views(seen={("vgg", "fake"): vgg(one), ("vgg", "real"): vgg(two)})
    assert guidance.lpips(v).item() == pytest.approx(ours.mean().item())
    assert lpips_distance(vgg(one), vgg(one)).abs().max() == 0


def test_lpips_of_another_network_is_refused():
    vgg = encoders.load("vgg", config.load().encoders, torch.device("cpu"), torch.contiguous_format)
    v = views(bare_run(encoders={"vgg": vgg}))
    v.real, v.fake = torch.zeros(2, 2, 3, 16, 16)
    with pytest.raises(UserError, match=r"loss\.lpips: needs a VGG16 .*not relu1_2, relu2_2, relu3_2, relu4_2"):
        guidance.lpips(v)
