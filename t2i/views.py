"""What losses may look at: a batch, its fakes and every feature of either, each computed at most once."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from t2i import schedule
from t2i.augment import augment
from t2i.conditioning import condition, image_features
from t2i.diffaugment import diffaugment
from t2i.interfaces import Batch, Generated, Judgement, Latent, Text
from t2i.nets.layers import ops
from t2i.parallel import gather, rows
from t2i.rng import Rng
from t2i.run import Run
from t2i.stages import reduced

TEMPERATURES = (0.01, 1.0)  # a learnt temperature stays within


class Views:
    """Lazy features of one round of one network's update. A loss that nobody asks for costs nothing."""

    def __init__(
        self,
        run: Run,
        batch: Batch,
        text: Text,
        latent: Latent,
        generated: Generated,
        rng: Rng,
        differentiated: Collection[str] = (),
        before: "Views | None" = None,
        attached: Generated | None = None,
    ):
        """latent: what the fakes were made of. differentiated: the inputs by which a penalty will differentiate, as
        Loss.differentiated_inputs names them. before: in the generator's update, the views of the discriminator's.
        attached: in the discriminator's, the same fakes with the generator's gradient, if both updates share them.
        """
        self._run, self.batch, self.rng, self.latent, self.generated = run, batch, rng, latent, generated
        self.G, self.stage, self.kimg = run.G, run.stage, run.kimg
        self.memory = run.memory  # what losses keep from step to step: tensors by loss and name, saved with the run
        self._differentiated, self._before, self.attached = differentiated, before, attached
        self.real = self._leaf(reduced(batch.image, self.stage), "real pictures")  # [B, 3, H, W] in [-1, 1]
        self.fake = self._leaf(generated.image, "fake pictures")
        self.text = replace(text, sentence=self._leaf(text.sentence, "sentence"))
        self._features: dict[tuple[str, str], Any] = {}

    def _leaf(self, x: Tensor, name: str) -> Tensor:
        return x.detach().requires_grad_() if name in self._differentiated else x

    def options(self, loss: str) -> dict[str, Any]:
        """What the configuration says of a loss."""
        return self._run.config.loss.get(loss, {})

    # --- the discriminator's

    def look(self, image: Tensor) -> Tensor:
        """What the discriminator judges of pictures, behind blur and augmentation."""
        run = self._run
        image = blur(image, schedule.at(run.config.train.d_blur, self.kimg))
        if run.ada_p > 0:
            image = augment(image, run.ada_p, self.rng, run.config.ada.ops)
        strengths = {name: schedule.at(value, self.kimg) for name, value in vars(run.config.diffaugment).items()}
        image = diffaugment(image, self.rng, **strengths)
        return run.D.look(image, self.stage)

    def judge(self, image: Tensor, text: Text) -> Judgement:
        """A pass of the discriminator."""
        return self._run.D(self.look(image), text, self.stage)

    @cached_property
    def real_look(self) -> Tensor:
        """In the generator's update that of the discriminator's."""
        if self._before is not None:
            return self._before.real_look.detach()
        return self._leaf(self.look(self.real), "real looks")

    @cached_property
    def fake_look(self) -> Tensor:
        """In the generator's update that of the discriminator's, if both share their fakes."""
        if self._before is not None and self._before.attached is self.generated:
            return self._before.attached_look
        if self.attached is not None and "fake pictures" not in self._differentiated:
            return self._leaf(self.attached_look.detach(), "fake looks")
        return self._leaf(self.look(self.fake), "fake looks")

    @cached_property
    def attached_look(self) -> Tensor:
        """The look at shared fakes, with the generator's gradient."""
        assert self.attached is not None
        return self.look(self.attached.image)

    @cached_property
    def real_judgement(self) -> Judgement:
        return self._run.D(self.real_look, self.text, self.stage)

    @cached_property
    def fake_judgement(self) -> Judgement:
        return self._run.D(self.fake_look, self.text, self.stage)

    @cached_property
    def real_embedding(self) -> Tensor:
        """[B, C] d(real) as a constant. In the generator's update that of the discriminator's, from before its weights
        moved: a key of an encoder one step older (as in MoCo, 1911.05722) saves a pass."""
        return (self._before or self).real_judgement.embedding.detach()

    def logit_of(self, judgement: Judgement, image: Tensor, text: Text) -> Tensor:
        """[B] the logit of pictures already judged, with other captions: without a second pass, where captions enter
        the discriminator last."""
        logit = self._run.D.judge_again(judgement, text)
        return self.judge(image, text).logit if logit is None else logit

    def temperature(self, name: str, value: float) -> Tensor | float:
        """The temperature of a loss: `value`, or what training has learnt from there, kept within bounds."""
        learnt = self._run.learnt
        if name not in learnt:
            return value
        with torch.no_grad():  # here and not in the graph, where a value out of bounds would stay there
            learnt[name].clamp_(*map(math.log, TEMPERATURES))
        return learnt[name].exp()

    # --- a second picture of the same scene

    @cached_property
    def text2(self) -> Text:
        """The second captions of the pictures."""
        return condition(self._run, self.batch, self.rng, second=True)

    @cached_property
    def fake2(self) -> Tensor:
        """[B, 3, H, W] fakes of the second captions from the latents of the first."""
        return self.G(self.latent, self.text2, self.stage, noise=self.rng).image

    # --- frozen networks'

    def features(self, network: str, picture: str) -> Any:
        """What a frozen network (a file of t2i/encoders) sees in "real", "fake" or "fake2" pictures.

        Of fakes differentiable, and drawn at random where the network looks at crops; of real ones whole and constant,
        those of the shards if any.
        """
        key = (network, picture)
        if key not in self._features:
            self._features[key] = self._look(network, picture)
        return self._features[key]

    def _look(self, network: str, picture: str) -> Any:
        if picture != "real":
            return self._run.encoders[network].features(getattr(self, picture), self.rng)
        return image_features(self._run, self.batch, network, self.real)

    @cached_property
    def clip_text(self) -> Text:
        """The captions in the space of CLIP's features."""
        encoders = self._run.config.encoders
        if encoders.text == encoders.clip:
            return self.text
        return self._run.encoders["clip"].text(self.batch.captions)

    # --- which rows show the same, and which do not

    @cached_property
    def identity(self) -> Tensor:
        """[B, 2] int64: the picture's number and the caption's digest."""
        return torch.stack([self.batch.image_id, self._digests(self.batch.captions)], dim=1)

    def _digests(self, captions: Sequence[str]) -> Tensor:
        digests = [hashlib.blake2b(c.strip().lower().encode(), digest_size=7).digest() for c in captions]
        return torch.tensor([int.from_bytes(d) for d in digests], device=self.real.device)

    @cached_property
    def same(self) -> Tensor:
        """[B, world·B] bool: rows of one picture, or with one caption, are no negatives of each other."""
        return self.same_as(gather(self.identity))

    def same_as(self, identity: Tensor) -> Tensor:
        """[B, N] bool for the identities [N, 2] of any rows."""
        return (self.identity[:, None] == identity[None]).any(2)

    @cached_property
    def same2(self) -> Tensor:
        """As `same`, where two pictures count as one also if a caption of either is any of the other's two."""
        assert self.batch.captions2 is not None
        pair = torch.stack([self.identity[:, 1], self._digests(self.batch.captions2)], dim=1)  # [B, 2]
        return self.same | (pair[:, None, :, None] == gather(pair)[None, :, None, :]).any((2, 3))

    @cached_property
    def distinct(self) -> Tensor:
        """[B] bool: the picture's two captions differ."""
        assert self.batch.captions2 is not None
        return self.identity[:, 1] != self._digests(self.batch.captions2)

    @cached_property
    def mismatch(self) -> tuple[Text, Tensor]:
        """For every row the caption of another picture, the next in the global batch that is not `same`; and [B]
        bool, whether there is one."""
        everyone = self.same.shape[1]
        own = rows(len(self.same), self.same.device)
        columns = (own[:, None] + torch.arange(1, everyone + 1, device=own.device)) % everyone  # [B, world·B]
        different = ~self.same.gather(1, columns)
        first = columns.gather(1, different.int().argmax(1, keepdim=True))[:, 0]
        sentence, words, mask = (
            gather(x.detach()) for x in (self.text.sentence, self.text.words, self.text.mask.byte())
        )
        return Text(sentence[first], words[first], mask[first].bool()), different.any(1)


def blur(image: Tensor, sigma: float) -> Tensor:
    """image [B, C, H, W] convolved with 2^-(x/σ)² for |x| ≤ ⌊3σ⌋ (2106.12423, appendix D.1), zeros outside of it."""
    reach = int(3 * sigma)
    if reach == 0:
        return image
    f = torch.arange(-reach, reach + 1, device=image.device).div(sigma).square().neg().exp2()
    return ops.filter2d(image, f / f.sum())
