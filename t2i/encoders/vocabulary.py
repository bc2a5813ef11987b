"""open_clip's byte-pair tokens, renumbered to the few that a training set uses.

A CLIP of a few MB cannot afford a row of weights for each of open_clip's 49,408 tokens.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

FILE = "vocabulary.json"  # a list of byte-pair tokens as text, in the order of their ids


def collect(captions: Iterable[str], min_count: int = 1) -> list[str]:
    """The byte-pair tokens that occur at least min_count times, the most frequent first."""
    tokenizer = SimpleTokenizer()
    counts = Counter(token for caption in captions for token in tokenizer.encode(caption))
    # Ties in the order of open_clip's ids: one data set always gives one vocabulary.
    kept = sorted((t for t in counts if counts[t] >= min_count), key=lambda t: (-counts[t], t))
    return [tokenizer.decoder[t] for t in kept]


class CompactTokenizer:
    """Ids: 0 padding, 1 ... n the tokens of the vocabulary, then unknown, start and end (the highest)."""

    def __init__(self, tokens: Sequence[str], context_length: int):
        """tokens: as `collect` gives them. context_length: start and end included."""
        self.tokens, self.context_length = list(tokens), context_length
        self._pairs = SimpleTokenizer()
        self._ids = {self._pairs.encoder[token]: i for i, token in enumerate(tokens, start=1)}
        self.unknown = len(tokens) + 1
        self.start, self.end = self.unknown + 1, self.unknown + 2
        self.vocab_size = self.end + 1

    def encode(self, caption: str) -> list[int]:
        """The caption's ids without start and end, of any length."""
        return [self._ids.get(token, self.unknown) for token in self._pairs.encode(caption)]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """[B, context_length] int64; what does not fit is cut and the end token stays."""
        ids = torch.zeros(len(captions), self.context_length, dtype=torch.long)
        for row, caption in zip(ids, captions):
            words = self.encode(caption)[: self.context_length - 2]
            row[: len(words) + 2] = torch.tensor([self.start, *words, self.end])
        return ids
