"""Seeds from words: one integer that depends on all of them."""

from __future__ import annotations


def mix(*words: int) -> int:
    """Return one 63-bit seed from several small numbers (SplitMix64's finaliser, word by word)."""
    state = 0x9E3779B97F4A7C15
    for word in words:
        state = (state ^ (word & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
