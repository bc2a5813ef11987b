"""Weights that a style scales: the layer that both StyleGANs' convolutions are made of, and how text enters it."""

from typing import Any

import torch
from torch import Tensor, nn

from t2i.nets.layers.equalised import FullyConnected


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
