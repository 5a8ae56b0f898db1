"""What checksums of Parquet pages are worth, and what they cost: bits that turn over, seconds to write and to read.

python benchmarks/checksums.py [scenes [bits]]

One shard holds the truth of drawn scenes, with the settings of `data_engine.shards`. For each bit a copy of it is
read in which that bit of the pages is turned over, with checksums and without.
"""

from __future__ import annotations

import io
import random
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.annotation import AnnotationRows
from data_engine.scenes.scene import make_scene

_REPEATS = 30


def main(scenes: int, bits: int) -> None:
    rows = AnnotationRows("truth")
    for index in range(scenes):
        rows.add(f"{index:032x}", make_scene(0, index).annotations)
    table = rows.table().combine_chunks()
    files = {sums: _written(table, sums) for sums in (False, True)}
    for sums, file in files.items():
        found = _flipped(table, file, sums, bits)
        words = ", ".join(f"{what} {count}" for what, count in found.items())
        print(
            f"{'with' if sums else 'without'} checksums: {len(file):,} bytes; of {bits} bits turned over: {words}"
        )
    seconds = {(what, sums): 0.0 for what in ("write", "read") for sums in files}
    for _ in range(_REPEATS):  # in turn, so that other work on the machine falls on both
        for sums, file in files.items():
            begun = time.process_time()
            _written(table, sums)
            written = time.process_time()
            _read(file, sums)
            seconds["write", sums] += written - begun
            seconds["read", sums] += time.process_time() - written
    for what in ("write", "read"):
        with_, without = seconds[what, True], seconds[what, False]
        print(
            f"{what} {table.num_rows:,} rows: {1000 * with_ / _REPEATS:.1f} ms with, "
            f"{1000 * without / _REPEATS:.1f} ms without: {with_ / without:.3f} times"
        )


def _written(table: pa.Table, sums: bool) -> bytes:
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=sums) as writer:
        for batch in table.to_batches(max_chunksize=65_536):
            writer.write_batch(batch)
    return buffer.getvalue()


def _read(file: bytes, sums: bool) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(file), page_checksum_verification=sums).read()


def _flipped(table: pa.Table, file: bytes, sums: bool, bits: int) -> dict[str, int]:
    chances = random.Random(1)
    pages = len(file) - int.from_bytes(file[-8:-4], "little") - 8
    found = {"an error": 0, "another table without an error": 0, "the same table": 0}
    for _ in range(bits):
        bit = chances.randrange(4 * 8, pages * 8)
        data = bytearray(file)
        data[bit // 8] ^= 1 << bit % 8
        try:
            same = _read(bytes(data), sums).equals(table)
        except (OSError, pa.ArrowInvalid):
            found["an error"] += 1
        else:
            found["the same table" if same else "another table without an error"] += 1
    return found


if __name__ == "__main__":
    main(*([int(value) for value in sys.argv[1:]] + [400, 400][len(sys.argv) - 1 :]))
