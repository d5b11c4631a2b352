"""What a licence is called, whoever wrote it down: `CC BY`, `CC BY-NC-ND`, `CC0`, `public domain`, or as it stands.

Read are Creative Commons' names and addresses, and the names that Flickr gives its licences. Versions and countries
are left out: `CC BY 2.0`, `cc-by-4.0`, `Attribution License` and `https://creativecommons.org/licenses/by/2.0/` are
one licence. In doubt a text is none of them, so that a rule which allows `CC BY` does not allow it.
"""

from __future__ import annotations

import re

_LIMITS = {
    "NC": r"nc|non ?commercial",
    "ND": r"nd|no ?deriv\w*",
    "SA": r"sa|share ?alike",
}
_ANY = "|".join(_LIMITS.values())
_BY = re.compile(
    r".*\bcc by\b.*"
    r"|.*\bcreative ?commons\b.*\battribution\b.*"
    r"|.*\bcreativecommons org licenses by\b.*"
    rf"|by( ({_ANY}))*( [\d ]+)?"
    rf"|attribution( ({_ANY}))*( licen[cs]e)?( [\d ]+)?"
)
_ZERO = re.compile(r".*\b(cc0|cc zero|publicdomain zero)\b.*")
_PUBLIC = re.compile(
    r"pdm( [\d ]+)?|public domain( mark)?( [\d ]+)?|.*\bpublicdomain mark\b.*|no known copyright restrictions"
)


def normal(text: str) -> str:
    """Return a licence's common name; one that is not Creative Commons is returned as is, with spaces tidied."""
    tidy = " ".join(text.split())
    words = " ".join(re.sub(r"[^a-z0-9]+", " ", tidy.lower()).split())
    if _ZERO.fullmatch(words):
        return "CC0"
    if _PUBLIC.fullmatch(words):
        return "public domain"
    if not _BY.fullmatch(words):
        return tidy
    return "-".join(["CC BY", *(part for part, names in _LIMITS.items() if re.search(rf"\b({names})\b", words))])
