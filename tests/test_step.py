"""What a whole step computes and trains, what of it a checkpoint keeps, and the networks that losses look through."""

import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import build_here
from test_losses import bare_run, views, with_losses
from test_parallel import looks, vgg16_weights
from torch import nn
from torch.nn.functional import softplus

from t2i import checkpoint, config, encoders
from t2i.encoders.frozen import Frozen, learning
from t2i.encoders.vgg import Vgg, lpips_distance
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.losses import TABLE, choose, differentiated_inputs, guidance, total
from t2i.nets.discriminators import stylegan2 as discriminators
from t2i.nets.generators import stylegan2 as generators
from t2i.rng import Rng
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
    before = Views(run, batch, text, latent, fake, run.rng(0, 0))
    for term in choose("generator", with_losses(given)):
        v = Views(run, batch, text, latent, run.G(latent, text), run.rng(1, 0), before=before)
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


# ---- several updates of the discriminator, rounds, and what does not learn


PLAIN = [
    "discriminator.mbstd_group=1", "generator.style_mixing=0", "loss.r1.weight=0", "loss.img_txt_d.weight=0",
    "loss.img_txt_clip.weight=0", "train.ema_kimg=0", "train.channels_last=false",
]  # fmt: skip


def by_sgd(run):
    """Gradients as steps, so that what an update was can be read off the weights."""
    run.d_optimizer = torch.optim.SGD(learning(run.D))
    run.g_optimizer = torch.optim.SGD(learning(run.G))
    run.config.optim.g.lr, run.config.optim.d.lr = 0.05, 0.1
    run.config.optim.g.beta1 = run.config.optim.d.beta1 = 0.0
    return run


def by_hand(run, batches, d_steps):
    """The non-saturating game, written out: per step all its rounds' mean gradient; G plays against the last D."""
    rounds = len(batches) // d_steps
    texts = [run.text_encoder(b.captions) for b in batches]

    def fake(part, phase):
        rng = Rng(0, 0, phase, part)
        return run.G(run.G.latent(len(batches[part]), rng), texts[part], noise=rng, track=phase == 1).image

    for first in range(0, len(batches), rounds):
        loss = 0.0
        for part in range(first, first + rounds):
            real = run.D(batches[part].image, texts[part]).logit
            loss = loss + (softplus(-real) + softplus(run.D(fake(part, 0).detach(), texts[part]).logit)).mean()
        for p, g in zip(run.D.parameters(), torch.autograd.grad(loss / rounds, [*run.D.parameters()])):
            p.data -= 0.1 * g
    loss = sum(softplus(-run.D(fake(n, 1), texts[n]).logit).mean() for n in range(first, first + rounds)) / rounds
    parameters = [*run.G.parameters()]
    for p, g in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
        p.data -= 0 if g is None else 0.05 * g


@pytest.mark.parametrize(("d_steps", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
def test_updates_are_those_made_by_hand(d_steps, accumulate):
    settings = [*PLAIN, f"train.batch={4 * accumulate}", f"train.accumulate={accumulate}", f"train.d_steps={d_steps}"]
    run, expected = by_sgd(build_here(*settings)), build_here(*settings)
    batches = [tiny_batch(seed) for seed in range(d_steps * accumulate)]
    before = {k: v.clone() for k, v in run.D.state_dict().items()}
    terms = train_step(batches, run)
    by_hand(expected, batches, d_steps)
    for network in ("D", "G"):
        ours, theirs = getattr(run, network).state_dict(), getattr(expected, network).state_dict()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6, msg=f"{network}.{key}")
    assert any(not torch.equal(before[k], v) for k, v in run.D.state_dict().items())
    assert (run.step, run.images) == (1, 4 * accumulate * d_steps)
    assert {"D/adversarial", "G/adversarial"} <= terms.keys()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_no_loss_is_due_for_stays_as_it_is(precision):
    late = ["loss.adversarial.weight=[[0,0],[0.004,0],[0.008,1]]", "loss.img_txt_d.weight=0", "loss.r1.weight=0"]
    run = build_here(*PLAIN, "train.batch=4", *late, "loss.img_txt_clip.weight=0")
    run.precision = precision
    before = {k: p.detach().clone() for k, p in [*run.D.named_parameters(), *run.G.named_parameters()]}
    now = lambda: dict([*run.D.named_parameters(), *run.G.named_parameters()])
    for _ in range(2):
        terms = train_step([tiny_batch()], run)
    assert all(torch.equal(before[k], p) for k, p in now().items())
    assert float(terms["D/gradient_norm"]) == float(terms["G/gradient_norm"]) == 0
    train_step([tiny_batch()], run)
    assert any(not torch.equal(before[k], p) for k, p in now().items())


def test_a_generator_without_any_loss_is_refused():
    without = [f"loss.{name}.weight=0" for name in ("adversarial", "img_txt_d", "img_txt_clip")]
    with pytest.raises(UserError, match=r"loss: none with weight acts on the generator"):
        build_here(*without)
    assert build_here(*without, "stages=[{kimg: 1, set: {loss.adversarial.weight: 1}}]")


def test_the_discriminator_steps_as_often_as_it_should():
    run = build_here(*PLAIN, "train.batch=4", "train.d_steps=3")
    for n in range(2):
        train_step([tiny_batch(seed) for seed in range(3)], run)
        assert {int(s["step"]) for s in run.d_optimizer.state.values()} == {3 * (n + 1)}
        assert {int(s["step"]) for s in run.g_optimizer.state.values()} == {n + 1}
    assert run.images == 24
    assert run.shown == 12


class Plain(nn.Module):
    """A frozen part that takes no care of itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).requires_grad_(False)


class Caring(Frozen):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))


@pytest.mark.parametrize("kind", [Plain, Caring])
def test_what_is_frozen_inside_of_a_network_stays_so(kind, monkeypatch):
    """Bit for bit through a hundred steps, while the networks around it learn through it."""

    class Looking(discriminators.Discriminator):
        def __init__(self, options, dimensions):
            super().__init__(options, dimensions)
            self.eyes, self.heed = kind(), nn.Parameter(torch.ones(4))

        def forward(self, image, text, stage=None):
            judgement = super().forward(image, text, stage)
            judgement.logit = judgement.logit + self.eyes.conv(image).mean((2, 3)) @ self.heed
            return judgement

    class Seeing(generators.Generator):
        def __init__(self, options, dimensions):
            super().__init__(options, dimensions)
            self.eyes = kind()

        def forward(self, *arguments, **more):
            made = super().forward(*arguments, **more)
            made.image = made.image + 0.01 * self.eyes.conv(made.image).mean((1, 2, 3), keepdim=True)
            return made

    monkeypatch.setattr(discriminators, "Discriminator", Looking)
    monkeypatch.setattr(generators, "Generator", Seeing)
    off = [f"loss.{name}.weight=0" for name in ("img_txt_d", "img_txt_clip")]
    run = build_here("train.batch=4", "discriminator.mbstd_group=2", "loss.r1.every=2", *off)
    if kind is Plain:  # an average of equal numbers
        assert run.G_ema.eyes is not run.G.eyes
    else:
        assert run.G_ema.eyes is run.G.eyes
        assert not [k for network in (run.G, run.D, run.G_ema) for k in network.state_dict() if "eyes" in k]
    optimised = {id(p) for o in (run.g_optimizer, run.d_optimizer) for group in o.param_groups for p in group["params"]}
    eyes = [run.D.eyes, run.G.eyes, run.G_ema.eyes]
    assert not any(id(p) in optimised for eye in eyes for p in eye.parameters())
    assert id(run.D.heed) in optimised
    tensors = lambda eye: [*eye.parameters(), *eye.buffers()]
    before = [[x.clone() for x in tensors(eye)] for eye in eyes]
    heed = run.D.heed.detach().clone()
    for step in range(100):
        train_step([tiny_batch(step)], run)
    for eye, old in zip(eyes, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(eye), old, strict=True))
        assert not any(p.requires_grad or p.grad is not None for p in eye.parameters())
    assert not torch.equal(heed, run.D.heed)
    if kind is Caring:
        assert not run.D.eyes.training
        again = build_here("train.batch=4", "discriminator.mbstd_group=2", "loss.r1.every=2", *off)
        again.load_state_dict(run.state_dict())
        assert torch.equal(again.D.heed, run.D.heed)
