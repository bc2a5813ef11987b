"""A batch → the Text that the networks train on: of its captions or, without captions, of its pictures themselves."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i import schedule
from t2i.errors import UserError
from t2i.interfaces import Batch, Text
from t2i.rng import Rng
from t2i.run import Run


def condition(run: Run, batch: Batch, rng: Rng, second: bool = False) -> Text:
    """The Text of a batch, one row a picture; `second`: of its other captions, or else of a second random draw.

    text.source=captions: the captions' features, stored in the shards or computed now. image: the pictures' features
    in the same space stand in for them, so that no caption is needed (LAFITE, 2111.13792, section 3.1). image_nn:
    those, perturbed by networks that learn with the generator, whose gradient the sentence carries. text.noise comes
    on top of each. Where the sentence does not come from the text encoder there are no words but one of zeros.
    """
    settings = run.config.text
    if settings.source == "captions":
        captions = batch.captions2 if second else batch.captions
        assert captions is not None
        stored = batch.extra.get("clip_text2" if second else "clip_text")
        text = run.text_encoder(captions) if stored is None else _wordless(F.normalize(stored.float(), dim=1))
    else:
        text = _wordless(image_features(run, batch))
    sentence = text.sentence
    if run.perturb is not None:
        sentence = run.perturb(sentence, rng.randn(*sentence.shape))
    if (share := schedule.at(settings.noise, run.kimg)) > 0:
        sentence = with_noise(sentence, rng.randn(*sentence.shape), share)
    return Text(sentence, text.words, text.mask)


def image_features(run: Run, batch: Batch, network: str = "clip", image: Tensor | None = None) -> Any:
    """What a frozen network sees in the real pictures, whole and constant: from the shards, at unit length, or computed
    now of `image` [B, 3, H, W] (None: the batch's)."""
    if (stored := batch.extra.get(f"{network}_image")) is not None:
        return F.normalize(stored.float(), dim=1)
    with torch.no_grad():
        return run.encoders[network].features(batch.image if image is None else image)


def with_noise(sentence: Tensor, noise: Tensor, share: float) -> Tensor:
    """normalise((1 - share) · t + share · ε / |ε|) for t [B, C] of unit length and ε [B, C] normal: LAFITE's noise on
    captions (share 0.1) and, for t of a picture, LAFITE-G (share 0.75; 2111.13792, equation 4)."""
    return F.normalize((1 - share) * sentence + share * F.normalize(noise, dim=1), dim=1)


class Perturbation(nn.Module):
    """LAFITE-NN (2111.13792, equation 5): a picture's feature f → normalise(f + μ(f) + exp(s(f)) ⊙ ε), a pseudo
    caption. μ and s are MLPs of four layers, C → 2C → 2C → 2C → C."""

    def __init__(self, dim: int):
        super().__init__()

        def mlp() -> nn.Sequential:
            hidden = ((dim, 2 * dim), (2 * dim, 2 * dim), (2 * dim, 2 * dim))
            layers = [m for a, b in hidden for m in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
            last = nn.Linear(2 * dim, dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            return nn.Sequential(*layers, last)

        self.mean, self.scale = mlp(), mlp()
        # At first f itself and noise as long as f.
        nn.init.constant_(self.scale[-1].bias, -math.log(dim) / 2)  # type: ignore[arg-type]

    def forward(self, feature: Tensor, noise: Tensor) -> Tensor:
        """feature [B, C] of unit length, noise [B, C] from N(0, 1) → [B, C] of unit length."""
        return F.normalize(feature + self.mean(feature) + self.scale(feature).exp() * noise, dim=1)


def _wordless(sentence: Tensor) -> Text:
    return Text(
        sentence, sentence.new_zeros(len(sentence), 1, 1), sentence.new_ones(len(sentence), 1, dtype=torch.bool)
    )


def reads_words(run: Run) -> bool:
    """Whether a network or a loss looks at Text.words and not at the sentence alone."""
    return any(t.loss.regions for t in run.terms()) or bool(getattr(run.config.generator, "word_attention", None))


def check(run: Run, loader: Any) -> None:
    """Leaves those stored features in the loader's batches that are of the run's own encoders: clip_image of
    encoders.clip, clip_text of encoders.text. Words are not stored: a run that reads them computes its captions.

    UserError where the shards hold features of no encoder of the run, and where words are read but there are none.
    """
    encoders = run.config.encoders
    if run.config.text.source != "captions" and reads_words(run):
        raise UserError(
            f"text.source={run.config.text.source}: the model or a loss (word_region) reads words, which pictures do "
            "not have; use text.source=captions, or a model and losses of sentences alone"
        )
    if not encoders.stored:
        loader.leave_out("clip_image", "clip_text")
    if not loader.fields & {"clip_image", "clip_text"}:
        return
    shards = f"data.shards={run.config.data.shards}"
    known = loader.samples.clip
    if len(known) != 1 or "" in known:
        named = ", ".join(sorted(known - {""})) or "none"
        raise UserError(
            f"{shards}: they hold features, but the manifests do not name one encoder for all of them ({named}); make "
            "them again with one make_shards --clip, or set encoders.stored=false to compute the features"
        )
    clip = run.encoders.get("clip")
    text = known == {run.text_encoder.model.fingerprint}
    image = clip is not None and known == {clip.text.model.fingerprint}
    if not text and not image:
        raise UserError(
            f"{shards}: they hold features of another CLIP (fingerprint {known.pop()}) than encoders.text="
            f"{encoders.text} ({run.text_encoder.model.fingerprint}); name that one, make the shards again with "
            f"--clip {encoders.clip}, or set encoders.stored=false to compute the features"
        )
    loader.leave_out(*(["clip_text"] if not text or reads_words(run) else []), *([] if image else ["clip_image"]))
