"""How the tests check annotations at run time: an `int` is a `float` too, as Python's typing rules have it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
