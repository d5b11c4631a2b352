from __future__ import annotations

import pytest

from rushlight.data.edit.licences import normal

SAME = {
    "CC BY": [
        "CC BY",
        "cc-by",
        "CC-BY-4.0",
        "CC BY 2.0",
        "by",
        "BY 2.0",
        "Attribution License",
        "Creative Commons Attribution 3.0 Unported",
        "https://creativecommons.org/licenses/by/2.0/",
        "http://creativecommons.org/licenses/by/2.0/deed.de",
    ],
    "CC BY-NC": [
        "CC BY-NC 2.0",
        "Attribution-NonCommercial License",
        "https://creativecommons.org/licenses/by-nc/2.0/",
    ],
    "CC BY-ND": ["cc_by_nd", "Attribution-NoDerivs License"],
    "CC BY-SA": ["CC-BY-SA-3.0", "Attribution-ShareAlike License", "by-sa"],
    "CC BY-NC-ND": ["Attribution-NonCommercial-NoDerivs License", "cc by-nd-nc"],
    "CC BY-NC-SA": [
        "https://creativecommons.org/licenses/by-nc-sa/2.0/",
        "Attribution-NonCommercial-ShareAlike License",
    ],
    "CC0": ["CC0", "cc0-1.0", "CC Zero", "https://creativecommons.org/publicdomain/zero/1.0/"],
    "public domain": ["Public Domain", "PDM", "https://creativecommons.org/publicdomain/mark/1.0/"],
    "All rights reserved": ["All rights reserved", "  All   rights reserved "],
    "MIT": ["MIT"],
    "photo by Ann": ["photo by Ann"],
    "attribution required, no redistribution": ["attribution required, no redistribution"],
    "not in the public domain": ["not in the public domain"],
    "": ["", "  "],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SAME.items() for text in texts])
def test_one_licence_has_one_name(name: str, text: str) -> None:
    assert normal(text) == name
    assert normal(normal(text)) == name
