"""Drop images that show the same again: those whose embedding is near that of another, anywhere in the data set.

Semantic duplicates, after SemDeDup (arXiv 2303.09540): another crop, another moment, another photo of the same
product on white, which no hash of pixels finds.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.box_pairs import Ints
from data_engine.dataset import Dataset
from data_engine.embedding_codes import Codes, Singles
from data_engine.embedding_lists import Lists, lengths_of, nearest_lists
from data_engine.errors import RecipeError, SpecialistError
from data_engine.query import connect, run, sql
from data_engine.recipe import Where
from data_engine.storage import storage_errors
from data_engine.where_sql import where_sql
from filters.nms import decided

VERSION = 1

EXACT = 50_000
"""Up to so many, each embedding is compared with all that stay."""

_LIST = 8_800
"""Embeddings in a list, of more: SemDeDup had 50,000 clusters for 440 million images."""

_SEARCHED = 3
"""Lists that each is compared with. Of 100,000 random vectors 1 found 94.4 % of the copies that comparing all finds, 2
98.7 %, 3 99.7 % (benchmarks/embedding_neighbours.py)."""

_ROWS = 1 << 10
"""Rows of a list that are judged together."""

_KEPT = 1 << 13
"""Rows that they are compared with at once."""

_ROUNDING = np.float32(1e-6)

_MEMORY = "512MB"
"""For putting the rows in order; what is more goes to disk."""

_SOURCES = """
    SELECT DISTINCT a.source FROM annotations a WHERE a.kind = 'image' AND a.granularity = '{name}' {where}
"""
_EMBEDDINGS = """
    SELECT a.image_id, TRY(from_base64(a.text)) AS code
    FROM annotations a JOIN images i USING (image_id)
    WHERE a.kind = 'image' AND a.granularity = '{name}' AND octet_length(code) > 0 {where}
    ORDER BY i.width::BIGINT * i.height DESC, a.image_id, a.annotation_id
"""


class NearEmbedding:
    """Drops whole images whose embedding has a cosine of `similarity` or more with that of an image that stays.

    Of several, the one with the most pixels stays (then the lowest id), as in `filters.near_duplicate`; SemDeDup
    keeps the one farthest from the centre of its cluster. The whole data set is looked at before the first
    shard; its embeddings lie in a scratch file (a byte a number), not in memory.

    - `name`: the rows of kind `image` that hold the embeddings (specialists.image_embedding).
    - `similarity`: SemDeDup's 1 - epsilon, which it sets by how much is to be left. 0.95 is our own choice, between
      the two that NeMo Curator's example for texts has, epsilon 0.1 and 0.01. Look at pairs of your
      own model: cosines of two models do not compare.

    Up to 50,000 embeddings each is compared with all that stay. Of more, k-means makes lists of some 8,800, and each is
    compared with the lists of its three nearest centres: pairs that stand in others are missed
    (benchmarks/embedding_neighbours.py prints how many). The value is the largest cosine with an image that
    stays and has more pixels. Raises RecipeError, and SpecialistError where there are no embeddings, or of more
    than one model.
    """

    columns = ("image_id",)
    whole_image = True

    def __init__(self, name: str = "embedding", similarity: float = 0.95) -> None:
        if not 0 < similarity <= 1 or not name.replace("_", "").replace("-", "").isalnum():
            raise RecipeError(
                "similarity must lie above 0 and up to 1, and a name has letters and digits", "correct `args`"
            )
        self.name = name
        self.similarity = similarity
        self.copies = pa.table({"image_id": pa.array([], pa.string()), "cosine": pa.array([], pa.float32())})

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Find the copies of the whole data set."""
        asked = {"name": self.name, "where": where_sql(Where(source=where.source))}
        found = sql(dataset, _SOURCES.format(**asked))["source"].to_pylist()
        if len(found) > 1:
            raise SpecialistError(
                f"embeddings {self.name!r} of {len(found)} sources: {', '.join(sorted(found)[:5])}",
                "name one of them under `where`: cosines of two models do not compare",
            )
        with (
            storage_errors(tempfile.gettempdir()),
            tempfile.TemporaryFile(prefix="fde-embeddings-") as scratch,
            connect(dataset, _MEMORY) as connection,
        ):
            ids, width = _written(run(connection, _EMBEDDINGS.format(**asked)), scratch)
            if not len(ids):
                raise SpecialistError(
                    f"no image has an embedding {self.name!r}",
                    "run specialists.image_embedding:ImageEmbedding first",
                )
            codes = np.memmap(scratch, np.int8, "r", shape=(len(ids), width))
            cosines = near_earlier(codes, self.similarity)
            del codes
        rows = np.flatnonzero(~np.isnan(cosines))
        self.copies = pa.table({"image_id": ids.take(pa.array(rows)), "cosine": pa.array(cosines[rows])})
        dropped = "".join(self.copies["image_id"].to_pylist())
        return hashlib.sha256(dropped.encode() + cosines[rows].tobytes()).hexdigest()

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.is_null(self.values(annotations))

    def values(self, annotations: pa.Table) -> pa.Array:
        at = pc.index_in(annotations["image_id"], self.copies["image_id"])
        return self.copies["cosine"].take(at).combine_chunks()


def _written(rows: pa.RecordBatchReader, scratch: IO[bytes]) -> tuple[pa.ChunkedArray, int]:
    """The images' ids in the rows' order, their codes written one after the other, and how many bytes each has.

    Of an image with several rows, which stand together, the first counts.
    """
    ids: list[pa.Array] = []
    width = 0
    last = pa.array([None], pa.string())
    for batch in rows:
        before = pa.concat_arrays([last, batch["image_id"][:-1]])
        chosen = batch.filter(pc.fill_null(pc.not_equal(batch["image_id"], before), True))
        last = batch["image_id"][-1:]
        widths = pc.unique(pc.binary_length(chosen["code"])).to_pylist()
        width = width or (widths or [0])[0]
        if any(one != width for one in widths):
            raise SpecialistError(
                f"embeddings of {width} and of {max(set(widths) - {width})} numbers",
                "name one source of them under `where`",
            )
        ids.append(chosen["image_id"])
        code = chosen["code"]
        # The bytes of all of them, as they lie in the column one after the other.
        scratch.write(code.buffers()[2][code.offset * width :][: len(code) * width] if len(code) else b"")
    scratch.flush()
    return pa.chunked_array(ids, pa.string()), width


def near_earlier(codes: Codes, similarity: float, exact: int = EXACT) -> Singles:
    """For each code (n, d), the best first, its largest cosine with one before it that stays, or NaN where it stays.

    They are taken in their order, and each is compared with those that stay so far: so a thousand
    pictures of one thing cost a thousand comparisons. With more than `exact` codes only lists of neighbours
    are compared. A code of zeros has a cosine of 0 with all.
    """
    search = _Search(codes, similarity, exact)
    for start, end in search.blocks():
        search.judge(np.arange(start, end))
    return search.nearest


class _Search:
    """`lists` (n, searched) are the lists that a row is compared with; in the first it stands itself.

    Products of bytes are whole numbers, which float32 holds exactly up to a width of 1,040.
    """

    def __init__(self, codes: Codes, similarity: float, exact: int) -> None:
        self.codes, self.least = codes, np.float32(similarity) - _ROUNDING
        self.lengths = lengths_of(codes)
        self.count = 1 if len(codes) <= exact else max(_SEARCHED, round(len(codes) / _LIST))
        self.lists: Lists = np.zeros((len(codes), 1), np.int32)
        if self.count > 1:
            self.lists = nearest_lists(codes, self.count, _SEARCHED)
        self.nearest = np.full(len(codes), np.nan, np.float32)
        self.kept = [np.empty(0, np.int64) for _ in range(self.count)]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Rows that are judged together: some hundreds of each list, and of none more than _ROWS."""
        start, searched = 0, self.lists.shape[1]
        while start < len(self.codes):
            flat = self.lists[start : start + max(_ROWS, _ROWS // 4 * self.count)].ravel()
            order = np.argsort(flat, kind="stable")
            starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
            place = np.arange(len(flat)) - np.repeat(starts, np.diff(starts, append=len(flat)))
            end = start + int(order[place == _ROWS].min(initial=len(flat))) // searched
            yield start, end
            start = end

    def judge(self, rows: Ints) -> None:
        """Decide a block: what stays from before takes its copies out, then what stays within it."""
        best = np.full(len(rows), -1, np.float32)
        for number, asking in _by_list(self.lists[rows]):
            for start in range(0, len(self.kept[number]), _KEPT):
                kept = self.kept[number][start : start + _KEPT]
                best[asking] = np.maximum(best[asking], self._cosines(rows[asking], kept).max(axis=1))
        self._within(rows, best)
        stays = rows[best < self.least]
        self.nearest[rows] = np.where(best < self.least, np.float32(np.nan), np.minimum(best, 1))
        for number, standing in _by_list(self.lists[stays, :1]):
            self.kept[number] = np.append(self.kept[number], stays[standing])

    def _within(self, rows: Ints, best: Singles) -> None:
        """Raise `best` of a block's rows to their cosines with those that stay in the block."""
        left = np.flatnonzero(best < self.least)
        standing = {number: left[some] for number, some in _by_list(self.lists[rows[left], :1])}
        pairs: list[tuple[Ints, Ints, Singles]] = []
        for number, asking in _by_list(self.lists[rows]):
            others = standing.get(number)
            if others is not None:
                cosines = self._cosines(rows[asking], rows[others])
                later, earlier = np.nonzero((cosines >= self.least) & (others < asking[:, None]))
                pairs.append((others[earlier], asking[later], cosines[later, earlier]))
        if not pairs:
            return
        first, second, cosine = (np.concatenate(side) for side in zip(*pairs, strict=True))
        taken = decided(first, second, len(rows), np.arange(len(rows)))[first]
        np.maximum.at(best, second[taken], cosine[taken])

    def _cosines(self, rows: Ints, others: Ints) -> Singles:
        one, other = self.codes[rows].astype(np.float32), self.codes[others].astype(np.float32)
        cosines: Singles = one @ other.T / (self.lengths[rows][:, None] * self.lengths[others])
        return cosines


def _by_list(lists: Lists) -> Iterator[tuple[int, Ints]]:
    """Each list that some rows (n, searched) name, and which of them do, in their order."""
    flat = lists.ravel()
    order = np.argsort(flat, kind="stable")
    edges = np.flatnonzero(np.diff(flat[order])) + 1
    for part in np.split(order, edges) if len(order) else []:
        yield int(flat[part[0]]), part // lists.shape[1]
