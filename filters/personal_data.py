"""Drop texts with data by which a person can be reached: e-mail addresses, telephone and account numbers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1

EMAIL = r"(?i)[a-z0-9._%+\-]+\s?(@|\[at\]|\(at\))\s?[a-z0-9\-]+(\.[a-z0-9\-]+)*\.[a-z]{2,}"
# A country code, or groups of digits with something between them: no year, price or size.
PHONE = r"\+\d{1,3}[\s.\-/]?(\(?\d{1,5}\)?[\s.\-/]?){2,6}\d{2,}|\(\d{2,5}\)\s?\d{3,}[\s.\-]?\d{2,}|\b\d{3}[.\-]\d{3,4}[.\-]\d{4}\b"
CARD = r"\b(\d{4}[ \-]){3}\d{4}\b"
IBAN = r"\b[A-Z]{2}\d{2}( ?[A-Z0-9]{4}){3,7}( ?[A-Z0-9]{1,3})?\b"

_ANY = f"({EMAIL})|({PHONE})|({CARD})|({IBAN})"


class PersonalData:
    """Drops texts with an e-mail address, a telephone number, a card's or an account's number.

    It also sees what OCR read, where its `where` lets it: a sign with a shop's number is dropped too. Patterns
    miss what is written in other ways, and names: it makes such data rare, not absent. Rows without text stay.
    """

    columns = ("text",)

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        found = pc.match_substring_regex(annotations["text"], _ANY)
        return pc.invert(pc.fill_null(found, False)).combine_chunks()
