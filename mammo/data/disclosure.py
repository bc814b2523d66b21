"""Which texts of a release may be shown or kept: words of labels, nothing of a person."""

import math
import re
from collections.abc import Iterable, Sequence

MOST_LABELS = 20  # distinct values of a label; more is a description or a name
_OLDEST = 130  # years
_LONGEST = 40  # characters of a value that is a word and no report
_LONGEST_MAKER = 64  # of DICOM's LO, which the name of a company may fill
# Words that labels, splits and their tables are made of; any other may be part of a name.
_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """
        benign malignant normal abnormal suspicious probably probable cancer lesion tumor tumour
        mass calcification calc distortion asymmetry callback recall without with no non not yes
        none negative positive healthy unhealthy disease finding findings other unknown true false
        dense fatty scattered heterogeneously extremely density birads bi rads interval screen
        detected screening left right cc mlo train training val valid validation dev test testing
        class label synthetic original augmented guide real and or of in situ invasive biopsy proven
        low high risk nan na nc bc dcis lcis idc ilc
        """,
    )
)
_DATE = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}|(?:19|20)\d{6}|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{2,4}"
)
_UID = re.compile(r"\d+(?:[.-]\d+){3,}")
_NUMBER = re.compile(r"\d{5,}")  # of a patient or an order
_NAME = re.compile(r"[\^@]|[A-Za-z],\s*[A-Za-z]|\b(?:dr|mr|mrs|ms)\.? ", re.IGNORECASE)


def sayable(text: str) -> str:
    """`text` in quotes where it is made of a label's own words and small numbers, else no text."""
    return repr(text) if _is_plain(text) else "(not shown: it may tell of a person)"


def stored_grade(text: str) -> str:
    """A BI-RADS grade or a density as the release has it; empty where it is another text."""
    return text if _is_plain(text) else ""


def stored_maker(text: str) -> str:
    """Who made a device; empty where the text looks like a person, a date or a number instead."""
    odd = _UID.search(text) or _DATE.search(text) or _NUMBER.search(text) or re.search("[@^]", text)
    return "" if odd or not text.isprintable() or len(text) > _LONGEST_MAKER else text


def _is_plain(text: str) -> bool:
    parts = re.findall(r"[^\W\d_]+|\d+", text.lower())
    known = all(part in _WORDS or len(part) <= (2 if part.isdigit() else 1) for part in parts)
    return known and len(text) <= _LONGEST


def personal(values: Iterable[str]) -> str:
    """What in `values` may tell of a person, in words; empty when nothing looks like it."""
    for value in values:
        if _UID.search(value):
            return "the number of a person, an order or a device"
        if _DATE.search(value):
            return "a date"
        if _NUMBER.search(value) and not _decimal(value):
            return "the number of a person, an order or a device"
        if _NAME.search(value):
            return "a name or an address"
        if not value.isprintable():
            return "binary data"
        if len(value) > _LONGEST or len(value.split()) > 5:
            return "free text"
    return ""


def unlike_labels(values: Sequence[str]) -> str:
    """Why `values`, one a row, can be no labels; empty when they can. Quotes none of them."""
    distinct = set(values)
    if len(distinct) > MOST_LABELS:
        return f"{len(distinct)} distinct values, where labels have {MOST_LABELS} at most"
    if len(values) >= 10 and len(distinct) > len(values) / 2:
        return f"{len(distinct)} distinct values in {len(values)} rows, nearly one for each"
    told = personal(sorted(distinct))
    return f"a value that looks like {told}" if told else ""


def unlike_measures(values: Sequence[str], patients: Sequence[str]) -> str:
    """Why the column `values` (one a row, of `patients`) may name a person; empty when it may not.

    A number that each patient has one of and no two share is an id, whatever its column's name.
    """
    filled = [(value, who) for value, who in zip(values, patients, strict=True) if value]
    told = personal(sorted({value for value, _ in filled}))
    if told:
        return f"it holds what looks like {told}"
    people = {who for _, who in filled}
    if len(people) >= 10 and len({value for value, _ in filled}) == len(set(filled)) == len(people):
        return "each patient has a value of its own"
    texts = [value for value, _ in filled if math.isnan(number(value))]
    if len(texts) >= 10 and len(set(texts)) == len(values):
        return "each row has a text of its own"
    return ""


def unlike_header(columns: Sequence[str]) -> str:
    """Why `columns` can be no header of a table; empty when they can. Quotes none of them."""
    odd = sum(bool(personal([name])) or not math.isnan(number(name)) for name in columns)
    return f"{odd} of its {len(columns)} cells are numbers, dates or names" if odd else ""


def stored_age(years: float) -> float:
    """`years`, above 89 as 90: the few older ones could be told by it (HIPAA's safe harbor).

    What can be nobody's age, as -5, 999 or infinity, is nan.
    """
    if not 0 <= years <= _OLDEST:
        return math.nan
    return 90.0 if years > 89 else years


def number(text: str) -> float:
    """The number that `text` is; nan for any other text."""
    if "_" in text:  # Python's own way to write 42 as 4_2
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def _decimal(text: str) -> bool:
    """Whether `text` is a number with a fraction, whose many digits are precision."""
    return bool(re.fullmatch(r"[+-]?\d{0,4}\.\d+(?:[eE][+-]?\d+)?", text))
