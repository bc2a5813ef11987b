"""CLIP with a vision transformer (Radford et al. 2021, 2103.00020), as open_clip builds it from the plain keys of its
configuration and under its names of parameters.

For the small models of train_clip.py: open_clip itself takes longer to import than they take to draw a picture.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Gives back the type it is given, where autocast computes in another."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        mlp = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(mlp))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, L, width]; mask [L, L], added to the logits of attention."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ImageTower(nn.Module):
    def __init__(self, image_size: int, patch_size: int, width: int, layers: int, head_width: int, embed_dim: int):
        super().__init__()
        self.image_size = image_size
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((image_size // patch_size) ** 2 + 1, width))
        self.ln_pre, self.ln_post = LayerNorm(width), LayerNorm(width)
        self.transformer = Transformer(width, layers, width // head_width)
        self.proj = nn.Parameter(torch.zeros(width, embed_dim))

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, image_size, image_size] → [B, embed_dim]."""
        x = self.conv1(image).flatten(2).transpose(1, 2)  # [B, patches, width]
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding.to(x.dtype)))
        return self.ln_post(x)[:, 0] @ self.proj


class Towers(nn.Module):
    """Weights are for `load_state_dict` to fill in; there is no start to train from."""

    attn_mask: Tensor

    def __init__(self, embed_dim: int, vision_cfg: dict[str, int], text_cfg: dict[str, int]):
        """vision_cfg: image_size, patch_size, width, layers, head_width. text_cfg: context_length, vocab_size, width,
        heads, layers. TypeError for any other key."""
        super().__init__()
        self.visual = ImageTower(**vision_cfg, embed_dim=embed_dim)
        self._text(**text_cfg, embed_dim=embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def _text(self, context_length: int, vocab_size: int, width: int, heads: int, layers: int, embed_dim: int) -> None:
        self.transformer = Transformer(width, layers, heads)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, embed_dim))
        # Words see those before them.
        later = torch.full((context_length, context_length), -torch.inf).triu(1)
        self.register_buffer("attn_mask", later, persistent=False)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.visual(image)

    def encode_text(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """[B, context_length] int64, the end token the highest → sentence [B, embed_dim], words [B, L, width]."""
        x = self.token_embedding(ids) + self.positional_embedding
        words = self.ln_final(self.transformer(x, self.attn_mask))
        return words[torch.arange(len(ids), device=ids.device), ids.argmax(1)] @ self.text_projection, words
