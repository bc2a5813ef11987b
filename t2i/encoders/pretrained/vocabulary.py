"""CLIP's byte-pair tokens, renumbered to the few that a training set uses.

A CLIP of a few MB cannot afford a row of weights for each of the 49,408 tokens. The pairs and their order are those
of open_clip's file; the tokenizers library finds them in a caption as open_clip's own tokenizer does (a test compares
the two), without importing open_clip.
"""

import gzip
import html
import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import ftfy
import regex
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

FILE = "vocabulary.json"  # a list of byte-pair tokens as text, in the order of their ids
MERGES = "bpe_simple_vocab_16e6.txt.gz"  # CLIP uses its first 48,894 pairs
SPECIAL = ("<start_of_text>", "<end_of_text>")
WORDS = regex.compile("|".join(SPECIAL) + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


@cache
def byte_pairs() -> Tokenizer:
    """From words to CLIP's tokens and their ids."""
    spec = importlib.util.find_spec("open_clip")  # where it lies; importing it would take seconds
    assert spec is not None
    assert spec.origin is not None
    lines = gzip.decompress((Path(spec.origin).parent / MERGES).read_bytes()).decode().split("\n")
    merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines[1 : 49152 - 256 - 2 + 1])]
    # Bytes as characters that can be printed, in the order of OpenAI's table: the printable ones first.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    single = [chr(n) for n in [*printable, *range(256, 512 - len(printable))]]
    vocabulary = [*single, *(c + "</w>" for c in single), *(a + b for a, b in merges), *SPECIAL]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def encode(caption: str) -> list[int]:
    """The ids of CLIP's tokens, without start and end: of the caption with broken characters mended, HTML's written
    out, one space between words and in lower case, as CLIP was trained."""
    text = html.unescape(html.unescape(ftfy.fix_text(caption)))
    words = WORDS.findall(" ".join(text.split()).lower())
    return byte_pairs().encode(words, is_pretokenized=True).ids


def collect(captions: Iterable[str], min_count: int = 1) -> list[str]:
    """The byte-pair tokens that occur at least min_count times, the most frequent first."""
    counts = Counter(token for caption in captions for token in encode(caption))
    # Ties in the order of CLIP's ids: one data set always gives one vocabulary.
    kept = sorted((t for t in counts if counts[t] >= min_count), key=lambda t: (-counts[t], t))
    tokens = {i: token for token, i in byte_pairs().get_vocab().items()}
    return [tokens[t] for t in kept]


class CompactTokenizer:
    """Ids: 0 padding, 1 ... n the tokens of the vocabulary, then unknown, start and end (the highest)."""

    def __init__(self, tokens: Sequence[str], context_length: int):
        """tokens: as `collect` gives them. context_length: start and end included. KeyError for what is no token."""
        self.tokens, self.context_length = list(tokens), context_length
        self._ids = {byte_pairs().token_to_id(token): i for i, token in enumerate(tokens, start=1)}
        if None in self._ids:
            raise KeyError(self.tokens[self._ids[None] - 1])
        self.unknown = len(tokens) + 1
        self.start, self.end = self.unknown + 1, self.unknown + 2
        self.vocab_size = self.end + 1

    def encode(self, caption: str) -> list[int]:
        """The caption's ids without start and end, of any length."""
        return [self._ids.get(token, self.unknown) for token in encode(caption)]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """[B, context_length] int64; what does not fit is cut and the end token stays."""
        ids = torch.zeros(len(captions), self.context_length, dtype=torch.long)
        for row, caption in zip(ids, captions):
            words = self.encode(caption)[: self.context_length - 2]
            row[: len(words) + 2] = torch.tensor([self.start, *words, self.end])
        return ids
