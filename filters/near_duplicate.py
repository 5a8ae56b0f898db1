"""Drop images that are there twice: in another size, format or quality, or nearly so, anywhere in the data set."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.box_pairs import Ints
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.near_hashes import from_hex, near_pairs
from data_engine.recipe import Where
from data_engine.where_sql import surveyed, where_sql
from filters.nms import decided

VERSION = 1

_HASHES = """
    SELECT a.image_id, min(lower(a.text)) AS hash
    FROM annotations a JOIN images i USING (image_id)
    WHERE a.kind = 'image' AND a.granularity = '{name}' AND regexp_full_match(a.text, '(?i)([0-9a-f]{{16}})+') {where}
    GROUP BY a.image_id ORDER BY any_value(i.width::BIGINT * i.height) DESC, a.image_id
"""


class NearDuplicate:
    """Drops whole images whose hash differs in at most `distance` bits from that of an image that stays.

    Of several, the one with the most pixels stays (then the lowest id), and no image falls to one that falls
    itself, so that a chain of slow changes is not cut down to one. The whole data set is looked at before
    the first shard; its hashes lie in memory.

    - `name`: which hash: `perceptual_hash` (specialists.image_measures), or another row of kind `image` with
      hexadecimal digits, a multiple of 16.
    - `distance`: 4 of 64 bits is our own choice. It takes time: with more, more hashes share
      a band and must be compared.

    Files that are equal byte for byte never get here: they are one image of the data set. The value is the
    number of bits that differ. Raises RecipeError, and SpecialistError where there is no such hash.
    """

    columns = ("image_id",)
    whole_image = True

    def __init__(self, name: str = "perceptual_hash", distance: int = 4) -> None:
        if not 0 <= distance <= 64 or not name.replace("_", "").replace("-", "").isalnum():
            raise RecipeError(
                "distance must lie in 0..64, and a name has letters and digits", "correct `args`"
            )
        self.name = name
        self.distance = distance
        self.copies = pa.table({"image_id": pa.array([], pa.string()), "bits": pa.array([], pa.float32())})

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Find the copies of the whole data set."""
        found = surveyed(dataset, _HASHES.format(name=self.name, where=where_sql(Where(source=where.source))))
        if not found.num_rows:
            raise SpecialistError(
                f"no image has a hash {self.name!r}", "run specialists.image_measures:ImageMeasures first"
            )
        if len(pc.unique(pc.utf8_length(found["hash"]))) != 1:
            raise SpecialistError(
                f"hashes {self.name!r} of several lengths", "name one source of them under `where`"
            )
        bits = copies(from_hex(found["hash"]), self.distance)
        rows = np.flatnonzero(bits >= 0)
        self.copies = pa.table(
            {"image_id": found["image_id"].take(pa.array(rows)), "bits": pa.array(bits[rows], pa.float32())}
        )
        ids = "".join(self.copies["image_id"].to_pylist())
        return hashlib.sha256(ids.encode() + bits[rows].tobytes()).hexdigest()

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.is_null(self.values(annotations))

    def values(self, annotations: pa.Table) -> pa.Array:
        at = pc.index_in(annotations["image_id"], self.copies["image_id"])
        return self.copies["bits"].take(at).combine_chunks()


def copies(hashes: np.ndarray, distance: int) -> Ints:
    """For each hash (n, words), the best first, the bits by which it differs from the first one that stays and
    is near it, or -1 where it stays itself."""
    # Equal ones are settled here, so that a thousand blank pictures are one comparison.
    own, first, number = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    pairs = list(near_pairs(own, distance)) if distance else []
    bits = np.full(len(hashes), -1, np.int64)
    bits[first[number] != np.arange(len(hashes))] = 0
    if not pairs:
        return bits
    one, other, differ = (np.concatenate(side) for side in zip(*pairs, strict=True))
    # Each distinct hash stands where its first image stands.
    place = first
    swap = place[one] > place[other]
    better, worse = np.where(swap, other, one), np.where(swap, one, other)
    stays = decided(better, worse, len(own), place)
    taken = stays[better] & ~stays[worse]
    better, worse, differ = better[taken], worse[taken], differ[taken]
    order = np.lexsort((place[better], worse))
    lost, at = np.unique(worse[order], return_index=True)
    least = np.full(len(own), -1, np.int64)
    least[lost] = differ[order][at]
    falls = least[number] >= 0
    bits[falls] = least[number[falls]]
    return bits
