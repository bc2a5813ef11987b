"""One training step: a discriminator update, then a generator update."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from t2i import ema, parallel
from t2i.augment import adjust
from t2i.conditioning import condition
from t2i.config import Config
from t2i.encoders.clip import Clip
from t2i.encoders.text import TextEncoder
from t2i.encoders.vgg import Vgg
from t2i.errors import UserError
from t2i.interfaces import Batch, Text
from t2i.losses import Term, due, leaves, total
from t2i.rng import Rng
from t2i.views import Latent, Views


@dataclass
class Run:
    """Everything that a step reads or changes."""

    config: Config
    G: Any  # a Generator of t2i/nets
    D: Any  # a Discriminator of t2i/nets
    G_ema: Any
    text_encoder: TextEncoder
    clip: Clip | None
    vgg: Vgg | None
    perturb: nn.Module | None  # of pictures' features into pseudo captions; learns with G
    d_optimizer: torch.optim.Optimizer
    g_optimizer: torch.optim.Optimizer
    d_losses: list[Term]
    g_losses: list[Term]
    scaler: torch.amp.GradScaler
    device: torch.device
    rank: int = 0
    world: int = 1
    step: int = 0
    images: int = 0  # real pictures shown so far
    ada_p: float = 0.0
    ada_signs: list[float] = field(default_factory=list)  # mean sign of D(real), a number a step since adjusting p
    path_mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    queues: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # earlier pairs that losses contrast with

    def rng(self, phase: int, part: int) -> Rng:
        """Fresh random numbers for one round of one network's update; a pure function of (seed, step)."""
        return Rng(self.config.seed, self.step, phase, part, rank=self.rank, world=self.world, device=self.device)

    def autocast(self) -> torch.autocast:
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = dtypes.get(self.config.train.precision)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def train_step(batches: list[Batch], run: Run) -> dict[str, Tensor]:
    """One discriminator update, then one generator update, each over all rounds of accumulation.

    batches: one a round, image [B, 3, H, W] in [-1, 1]. Returns every loss term, unweighted, and statistics of the
    last round. Raises UserError when a loss or a gradient is not finite.
    """
    texts = [condition(run, batch, run.rng(2, part)) for part, batch in enumerate(batches)]
    d_losses, g_losses = due(run.d_losses, run.step), due(run.g_losses, run.step)
    real_embeddings = []

    for part, (batch, text) in enumerate(zip(batches, texts, strict=True)):
        rng = run.rng(0, part)
        with run.autocast():
            with torch.no_grad():
                fake = generate(run, text, draw(run, len(text), rng), rng)
            views = Views(run, batch, text.detach(), fake, rng, leaves=leaves(d_losses))
            loss, d_terms = total(d_losses, views)
            signs = views.real_judgement.logit.detach().sign().mean()
        run.scaler.scale(loss / len(batches)).backward()
        real_embeddings.append(views.real_embedding)
    d_norm = update(run.d_optimizer, run.D, run, d_terms)

    with frozen(run.D):
        for part, (batch, text, known) in enumerate(zip(batches, texts, real_embeddings, strict=True)):
            rng = run.rng(1, part)
            with run.autocast():
                latent = draw(run, len(text), rng)
                fake = generate(run, text, latent, rng, track=True)
                loss, g_terms = total(g_losses, Views(run, batch, text, fake, rng, latent, real_embedding=known))
            run.scaler.scale(loss / len(batches)).backward()
    g_norm = update(run.g_optimizer, run.G, run, g_terms)
    run.scaler.update()

    train = run.config.train
    run.step += 1
    run.images += train.batch
    ema.update(run.G_ema, run.G, ema.decay(train.batch, run.images, train.ema_kimg, train.ema_ramp))
    follow_overfitting(run, signs)
    terms = {f"D/{k}": v for k, v in d_terms.items()} | {f"G/{k}": v for k, v in g_terms.items()}
    return terms | {"D/gradient_norm": d_norm, "G/gradient_norm": g_norm, "D/sign_real": signs}


def draw(run: Run, count: int, rng: Rng) -> Latent:
    """Latents [count, latent_dim], with style mixing (1812.04948, section 3.1): one cutoff a batch."""
    G, mix = run.G, None
    z = rng.randn(count, G.latent_dim)
    if rng.uniform() < run.config.train.style_mixing:
        mix = (rng.randn(count, G.latent_dim), 1 + int(rng.uniform() * (G.num_ws - 1)))
    return z, mix


def generate(run: Run, text: Text, latent: Latent, rng: Rng, track: bool = False) -> Tensor:
    """Fakes [B, 3, H, W] for captions. track: the generator's running means (w_avg, towards which truncation draws)
    take the batch in."""
    z, mix = latent
    return run.G(z, text, noise=rng, mix=mix, track=parallel.gather if track else None)


@contextmanager
def frozen(network: nn.Module):
    """Gradients pass through the network but none are kept for its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def update(optimizer: torch.optim.Optimizer, network: nn.Module, run: Run, terms: dict[str, Tensor]) -> Tensor:
    """Averages gradients over processes, steps the optimiser and returns the gradients' norm."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parallel.average_gradients(parameters)
    run.scaler.unscale_(optimizer)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # An infinite gradient under fp16 is the scaler's to halve and skip; anything else would ruin the weights.
    watched = [*terms.values()] if run.scaler.is_enabled() else [*terms.values(), norm]
    finite = bool(torch.stack([v.float() for v in watched]).isfinite().all())
    if parallel.any_of(not finite, run.device):
        values = ", ".join(f"{k}={float(v):.4g}" for k, v in terms.items())
        raise UserError(
            f"step {run.step}: not finite: {values}, gradient norm {float(norm):.4g} of {type(network).__module__} "
            f"{type(network).__name__}; lower optim.*.lr or raise loss.r1.gamma, then resume"
        )
    run.scaler.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    return norm


def follow_overfitting(run: Run, signs: Tensor) -> None:
    """ADA's controller (2006.06676, section 3): p follows the mean sign of D(real)."""
    ada = run.config.ada
    if ada.mode != "ada":
        return
    run.ada_signs.append(float(parallel.mean(signs)))
    if run.step % ada.every == 0:
        average = sum(run.ada_signs) / len(run.ada_signs)
        run.ada_p = adjust(run.ada_p, average, run.config.train.batch, ada.every, ada.target, ada.speed_kimg)
        run.ada_signs.clear()
