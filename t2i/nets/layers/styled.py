"""What the StyleGANs share: weights that a style scales, how text enters them, and the way from latent to styles."""

from typing import Any

import torch
from torch import Tensor, nn

from t2i import parallel
from t2i.interfaces import Generated, Latent, Stage, Text
from t2i.nets.contract import Generator
from t2i.nets.layers.equalised import FullyConnected, Mapping


class Styled(nn.Module):
    """Weights [O, I, k, k] and the affine layer that gives their style [B, I] from w, or from w and text.

    Text enters as in LAFITE: an MLP of the text is joined to w (join=True), or shifts and scales the style of w.
    """

    def __init__(
        self, i: int, o: int, k: int, w_dim: int, text_dim: int = 0, text_hidden: int = 512, join: bool = True
    ):
        super().__init__()
        self.mode = ("join" if join else "scale") if text_dim else "plain"
        between = (text_dim + text_hidden) // 2
        if self.mode != "join":
            self.affine = FullyConnected(w_dim, i, bias=1)
        for name in {"plain": (), "join": ("pre_",), "scale": ("scale_layer_", "bias_layer_")}[self.mode]:
            setattr(self, f"{name}0", FullyConnected(text_dim, between, act=True, lr=0.01))
            setattr(self, f"{name}1", FullyConnected(between, text_hidden, act=True, lr=0.01))
            if self.mode == "scale":
                setattr(self, f"{name}2", FullyConnected(text_hidden, i))
        if self.mode == "join":
            self.affine_0 = FullyConnected(w_dim + text_hidden, i, bias=1)
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o))

    def style(self, w: Tensor, text: Tensor | None) -> Tensor:
        """w [B, w_dim], text [B, text_dim] → [B, I] in float32."""
        if self.mode == "plain":
            return self.affine(w)
        if self.mode == "join":
            return self.affine_0(torch.cat([self._mlp("pre_", text), w], 1))
        return self._mlp("bias_layer_", text) + self.affine(w) * self._mlp("scale_layer_", text)

    def _mlp(self, name: str, x: Any) -> Tensor:
        for n in range(3 if self.mode == "scale" else 2):
            x = getattr(self, f"{name}{n}")(x)
        return x


class StyleGenerator(Generator):
    """Latent → mapping → a style for every layer → synthesis. A subclass makes `mapping` and `synthesis`."""

    mapping: Mapping
    synthesis: Any
    w_avg_beta: float  # decay of the running mean of w
    style_mixing: float  # probability that a batch in training mixes two latents
    tanh: float  # pictures are tanh(this · x); 0: x itself

    @property
    def w_avg(self) -> Tensor:
        """[w_dim] the mean of w, towards which truncation draws."""
        return self.mapping.w_avg

    def latent(self, count: int, rng: Any) -> Latent:
        """z and, while training, often a partner z2 whose styles hold from layer `cutoff` on, one for the whole batch
        (style mixing: 1812.04948, section 3.1)."""
        latent = Latent(rng.randn(count, self.latent_dim))
        if self.training and rng.uniform() < self.style_mixing:
            z2 = rng.randn(count, self.latent_dim)
            cutoff = 1 + int(rng.uniform() * (self.num_ws - 1))
            latent.extra = {"z2": z2, "cutoff": torch.full((count,), cutoff, device=z2.device)}
        return latent

    def styles(self, latent: Latent, text: Text, truncation: Tensor | float = 1.0) -> Tensor:
        """ws [B, num_ws, w_dim]. truncation: 1 = none, 0 = w_avg; a number, or [B, 1, 1]."""
        ws = self.mapping(latent.z, text)
        if latent.extra:
            mixed = torch.arange(self.num_ws, device=ws.device) >= latent.extra["cutoff"][:, None]  # [B, num_ws]
            ws = torch.where(mixed[:, :, None], self.mapping(latent.extra["z2"], text), ws)
        if isinstance(truncation, Tensor) or truncation != 1:
            ws = self.w_avg.lerp(ws, truncation)
        return ws

    def from_styles(
        self, ws: Tensor, text: Text, stage: Stage | None = None, noise: Any = "const", track: bool = False
    ) -> Generated:
        """Pictures [B, 3, H, W] of ws [B, num_ws, w_dim]."""
        image = self.synthesis(ws, text, noise if self.takes_noise else None, stage, track)
        return Generated((self.tanh * image).tanh() if self.tanh else image)

    def forward(
        self,
        latent: Latent,
        text: Text,
        stage: Stage | None = None,
        *,
        truncation: float = 1.0,
        noise: Any = "const",
        track: bool = False,
    ) -> Generated:
        """Pictures [B, 3, H, W], nominally in [-1, 1], not clamped; see Generator."""
        ws = self.styles(latent, text, truncation)
        if track:  # the first style is never of the partner
            with torch.no_grad():
                self.w_avg.lerp_(parallel.gather(ws[:, 0].detach().float()).mean(0), 1 - self.w_avg_beta)
        return self.from_styles(ws, text, stage, noise, track)
