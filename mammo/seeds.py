"""Randomness as an argument: a seed for every place that draws, derived from names and numbers."""

import hashlib


def derive(seed: int, *parts: object) -> int:
    """Mix `seed` with `parts` (names, epochs, indices) into one seed in [0, 2**63)."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
