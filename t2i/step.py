"""One training step: updates of the discriminator, then one of the generator."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from t2i import ema, parallel, schedule
from t2i.augment import adjust
from t2i.conditioning import condition
from t2i.encoders.frozen import learning
from t2i.errors import UserError
from t2i.interfaces import Batch, Generated
from t2i.losses import differentiated_inputs, due, total
from t2i.run import Run
from t2i.views import Views


def train_step(batches: list[Batch], run: Run) -> dict[str, Tensor]:
    """`train.d_steps` updates of the discriminator, each with pictures of its own, then one of the generator, with
    those of the last; each over `train.accumulate` rounds.

    batches: one a round, image [B, 3, H, W] in [-1, 1]. Returns every loss term, unweighted, and statistics of the
    last round. With `train.shared_fakes` the generator is updated by the fakes that the discriminator was, not by new
    ones. A network that no loss is due for stays as it is. Raises UserError when a loss or a gradient is not
    finite.
    """
    follow_schedules(run)
    texts = [condition(run, batch, run.rng(2, part)) for part, batch in enumerate(batches)]
    d_losses = due(run.objective.discriminator, run.step, run.kimg)
    g_losses = due(run.objective.generator, run.step, run.kimg)
    rounds, shared = len(batches) // run.config.train.d_steps, run.config.train.shared_fakes

    for first in range(0, len(batches), rounds):
        judged: list[Views] = []
        for part in range(first, first + rounds):
            rng, text = run.rng(0, part), texts[part].detach()
            with run.autocast():
                latent = run.G.latent(len(text), rng)
                with torch.set_grad_enabled(shared):
                    drawn = run.G(latent, texts[part], run.stage, noise=rng, track=shared)
                fake = Generated(drawn.image.detach(), {name: x.detach() for name, x in drawn.extra.items()})
                views = Views(
                    run, batches[part], text, latent, fake, rng, differentiated_inputs(d_losses),
                    attached=drawn if shared else None,
                )  # fmt: skip
                loss, d_terms = total(d_losses, views)
                signs = views.real_judgement.logit.detach().sign().mean()
            if d_losses:
                run.scaler.scale(loss / rounds).backward()
            judged.append(views)
        d_norm = update(run.d_optimizer, run.D, run, d_terms)

    with frozen(run.D, run.learnt):
        for before, part in zip(judged, range(first, first + rounds)):
            rng, text = run.rng(1, part), texts[part]
            with run.autocast():
                if before.attached is not None:
                    latent, fake = before.latent, before.attached
                else:
                    latent = run.G.latent(len(text), rng)
                    fake = run.G(latent, text, run.stage, noise=rng, track=True)
                views = Views(run, batches[part], text, latent, fake, rng, before=before)
                loss, g_terms = total(g_losses, views)
            if g_losses:
                run.scaler.scale(loss / rounds).backward()
    g_norm = update(run.g_optimizer, run.G, run, g_terms)

    train = run.config.train
    run.step += 1
    run.images += run.shown
    half_life = schedule.at(train.ema_kimg, run.kimg)
    ema.update(run.G_ema, run.G, ema.decay(run.shown, run.images, half_life, train.ema_ramp))
    follow_overfitting(run, signs)
    terms = {f"D/{k}": v for k, v in d_terms.items()} | {f"G/{k}": v for k, v in g_terms.items()}
    return terms | {"D/gradient_norm": d_norm, "G/gradient_norm": g_norm, "D/sign_real": signs}


def follow_schedules(run: Run) -> None:
    """Adam's numbers and a fixed p as they are after the pictures seen."""
    for optimizer, adam in ((run.d_optimizer, run.config.optim.d), (run.g_optimizer, run.config.optim.g)):
        lr, *betas = (schedule.at(value, run.kimg) for value in (adam.lr, adam.beta1, adam.beta2))
        for group in optimizer.param_groups:
            group.update(lr=lr, betas=tuple(betas), eps=adam.eps)
    if run.config.ada.mode != "ada":
        run.ada_p = schedule.at(run.config.ada.p, run.kimg) if run.config.ada.mode == "fixed" else 0.0


@contextmanager
def frozen(*networks: nn.Module):
    """Gradients pass through the networks but none are kept for their weights; what was frozen before stays so."""
    parameters = [p for network in networks for p in learning(network)]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def update(optimizer: torch.optim.Optimizer, network: nn.Module, run: Run, terms: dict[str, Tensor]) -> Tensor:
    """Averages gradients over processes, steps the optimiser and returns the gradients' norm."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not terms:
        return torch.zeros((), device=run.device)
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
    run.scaler.update()
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
        run.ada_p = adjust(run.ada_p, average, run.shown, ada.every, ada.target, ada.speed_kimg)
        run.ada_signs.clear()
