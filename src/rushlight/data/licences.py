"""What a licence is called, whoever wrote it down: `CC BY`, `CC BY-NC-ND`, `CC0`, `public domain`, or as it stands.

Read are Creative Commons' names and addresses, and the names that Flickr gives its licences. Versions and countries
are left out: `CC BY 2.0`, `cc-by-4.0`, `Attribution License` and `https://creativecommons.org/licenses/by/2.0/` are
one licence.
"""

from __future__ import annotations

import re

_PARTS = {
    "BY": ("by", "attribution"),
    "NC": ("nc", "noncommercial", "non commercial"),
    "ND": ("nd", "noderivs", "noderivatives", "no derivs", "no derivatives"),
    "SA": ("sa", "sharealike", "share alike"),
}
_ORDER = ("NC", "ND", "SA")


def normal(text: str) -> str:
    """A licence's common name; what is none of Creative Commons' comes back as it stands, spaces tidied."""
    tidy = " ".join(text.split())
    words = " ".join(re.sub(r"[^a-z0-9]+", " ", tidy.lower()).split())
    if re.search(r"\b(cc0|cc zero|publicdomain zero)\b", words):
        return "CC0"
    if re.search(r"\b(public ?domain|pdm|no known copyright restrictions)\b", words):
        return "public domain"
    has = {part for part, names in _PARTS.items() if any(re.search(rf"\b{name}\b", words) for name in names)}
    named = re.search(r"\b(cc|creative ?commons|attribution)\b", words) or re.fullmatch(
        r"by( (nc|nd|sa))*( [\d ]+)?", words
    )
    if "BY" not in has or not named:
        return tidy
    return "-".join(["CC BY", *(part for part in _ORDER if part in has)])
