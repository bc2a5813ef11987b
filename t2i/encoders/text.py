"""Captions → Text, by the frozen text tower of any open_clip or Hugging Face model."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from t2i.encoders.pretrained import Pretrained, load, pad_words
from t2i.interfaces import Text


class TextEncoder(nn.Module):
    """Frozen: no gradients, always in eval mode.

    The sentence is the model's own: CLIP's projected feature, or the mean over the tokens of a T5 or BERT
    (Reimers & Gurevych 2019, 1908.10084). The words are the last hidden states.
    """

    def __init__(self, model: Pretrained):
        super().__init__()
        self.model, self.network = model, model.network
        self.name, self.max_words = model.name, model.max_words
        super().train(False)
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
            pad_words(words.float(), self.max_words),
            pad_words(mask[..., None], self.max_words)[..., 0],
        )

    def cut(self, caption: str) -> str | None:
        """The end of the caption, from the first word that is not read whole; None if all is read."""
        if self.model.fits(caption):
            return None
        words = caption.split()
        read = next(n for n in reversed(range(len(words))) if self.model.fits(" ".join(words[:n])))
        return " ".join(words[read:])

    def train(self, mode: bool = True) -> "TextEncoder":
        """Stays in eval mode."""
        return super().train(False)


def load_text_encoder(name: str, device: torch.device | str = "cpu") -> TextEncoder:
    """`name`: a shipped name, a folder made by train_clip.py, open_clip:ARCH/TAG_OR_FILE or hf:NAME_OR_FOLDER.

    Raises UserError where the name is unknown or its weights are neither on this machine nor to be fetched.
    """
    return TextEncoder(load(name, device))
