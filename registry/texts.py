"""Which characters a text may hold that is stored, shown or logged."""

import re

from registry.errors import InvalidInput, Problem

# Control characters but tab and line ends (Unicode category Cc), and halves of surrogate pairs.
# PostgreSQL stores no NUL, UTF-8 has no surrogates, and the others change what a terminal shows.
UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# In texts for a model: people ask about the output of terminals too.
UNFIT_FOR_MODELS = re.compile("[\x00\ud800-\udfff]")
# What UTF-8 cannot write.
SURROGATES = re.compile("[\ud800-\udfff]")
# In a text of one line: a name, a part of an address.
UNFIT_FOR_LINES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check(text: str, *, at: str, unfit: re.Pattern[str] = UNFIT) -> str:
    """Return a text that holds no unfit character. Raises InvalidInput with the pointer `at`."""
    if found := unfit.search(text):
        detail = f"holds {name_of_character(found[0])}, at character {found.start() + 1}"
        raise InvalidInput(f"{at} {detail}", problems=(Problem(at, detail),))
    return text


def name_of_character(character: str) -> str:
    """Return what an unfit character is, and its code point."""
    code = ord(character)
    kind = "half of a surrogate pair" if 0xD800 <= code <= 0xDFFF else "a control character"
    return f"{kind} (U+{code:04X})"
