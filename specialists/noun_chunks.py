"""The noun chunks of regions' captions, as further texts of the regions.

FLD-5B gives each region three candidate texts: the detector's category, a caption of the crop, and the
caption's noun chunks (arXiv 2311.06242, section 4.1). `filters.best_region_text:BestRegionText` chooses
among them by a scorer's scores.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.blacklist import names_nothing
from data_engine.errors import SpecialistError
from data_engine.image import Image
from specialists.noun_phrases import noun_phrases
from specialists.said import Statement, statements

VERSION = 2  # raised too when the phrases of noun_phrases or the blacklist's change


class NounChunks:
    """Regions of granularity `noun_chunk`, for each region of granularity `brief` with a text in `said`.

    A chunk has the caption's box, and as parent the region that the caption hangs on (the caption's own
    row where it hangs on none), so that all candidate texts of a region are siblings. Left out are
    pronouns and phrases that name no thing (data_engine.blacklist), and what a text of the same region
    in `said` already says, in whatever case: a caption that is one noun phrase has no chunks.

    - `sources`: of the statements of `needs`, only those by these specialists.

    Each text is parsed once per batch. Raises MissingPackageError or ModelLoadError without the parser.
    """

    needs_pixels = False

    def __init__(self, sources: list[str] | None = None) -> None:
        self.sources = None if sources is None else frozenset(sources)
        noun_phrases([""])  # a missing parser fails here, once, and not image by image

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """Rows in the order of the captions in `said`, and of the chunks in each."""
        if said is None:
            raise SpecialistError(
                "noun chunks are those of regions' captions, and none were given",
                "name the specialist that captions regions under this one's `needs`",
            )
        given = statements(said, self.sources)
        texts = list(
            dict.fromkeys(s.text for one in given.values() for s in one if s.text and _is_caption(s))
        )
        chunks = {
            text: [phrase for phrase, _, _ in found if not names_nothing(phrase)]
            for text, found in zip(texts, noun_phrases(texts), strict=True)
        }
        return [list(_rows(given.get(image.image_id, []), chunks)) for image in images]


def _rows(given: Sequence[Statement], chunks: dict[str, list[str]]) -> Iterable[Annotation]:
    told: set[tuple[Hashable, str]] = {(_region(s), _plain(s.text)) for s in given if s.text}
    for caption in given:
        if not caption.text or not _is_caption(caption):
            continue
        region = _region(caption)
        for chunk in chunks[caption.text]:
            if (region, _plain(chunk)) not in told:
                told.add((region, _plain(chunk)))
                yield Annotation("region", chunk, "noun_chunk", parent=region, box=caption.box)


def _is_caption(statement: Statement) -> bool:
    return (statement.kind, statement.granularity) == ("region", "brief") and statement.box is not None


def _region(statement: Statement) -> Annotation | str:
    """What the region's texts hang on."""
    return statement.reference if statement.parent is None else statement.parent


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
