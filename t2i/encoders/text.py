"""Captions → Text, by the frozen text tower of any open_clip or Hugging Face model."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.encoders import pretrained
from t2i.encoders.frozen import Frozen
from t2i.encoders.pretrained.network import Pretrained
from t2i.interfaces import Text


class TextEncoder(Frozen):
    """Reads captions without gradients.

    The sentence is the model's own: CLIP's projected feature, or the mean over the tokens of a T5 or BERT
    (Reimers & Gurevych 2019, 1908.10084). The words are the last hidden states.
    """

    network: nn.Module

    def __init__(self, model: Pretrained):
        super().__init__(network=model.network)
        self.model = model
        self.name, self.max_words = model.name, model.max_words
        empty = self([""])
        self.dim, self.word_dim = empty.sentence.shape[1], empty.words.shape[2]

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Text:
        """Text with sentence [B, dim] unit length, words [B, max_words, C'] float32 and mask [B, max_words].

        The mask is True on the caption's own tokens, not on start, end or padding; a caption without any keeps
        its first, so that no row is empty. A caption longer than max_words is cut: `cut` says what is lost.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        tokens = self.model.tokenize(captions).to(next(self.network.parameters()).device)
        sentence, words = self.model.encode_text(tokens)  # [B, dim], [B, L, C']
        mask = tokens.words
        mask[:, 0] |= ~mask.any(1)
        return Text(
            F.normalize(sentence.float(), dim=-1),
            _pad(words.float(), self.max_words),
            _pad(mask[..., None], self.max_words)[..., 0],
        )

    def cut(self, caption: str) -> str | None:
        """The end of the caption, from the first word that is not read whole; None if all is read."""
        if self.model.fits(caption):
            return None
        words = caption.split()
        read = next(n for n in reversed(range(len(words))) if self.model.fits(" ".join(words[:n])))
        return " ".join(words[read:])


def load(
    settings: Any, device: torch.device | str = "cpu", layout: torch.memory_format = torch.contiguous_format
) -> TextEncoder:
    """The encoder that settings.text names; it has no convolutions to lay out."""
    return load_text_encoder(settings.text, device)


def load_text_encoder(name: str, device: torch.device | str = "cpu") -> TextEncoder:
    """`name`: a shipped name, a folder made by train_clip.py, open_clip:ARCH/TAG_OR_FILE or hf:NAME_OR_FOLDER.

    Raises UserError where the name is unknown or its weights are neither on this machine nor to be fetched.
    """
    return TextEncoder(pretrained.load(name, device))


def _pad(words: Tensor, length: int) -> Tensor:
    """[B, L, C] → [B, length, C] with zeros (False) behind."""
    return F.pad(words, (0, 0, 0, length - words.shape[1]))
