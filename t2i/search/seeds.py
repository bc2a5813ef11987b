"""Seeds of a search's random numbers."""

import hashlib

from t2i.rng import derive_seed


def seed_for(seed: int, prompt: str, use: str) -> int:
    """The seed of one use of random numbers: none depends on another, nor on what other prompts there are."""
    parts = (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) for text in (prompt, use))
    return derive_seed(seed, *parts)
