"""Embeddings as text: a vector's direction in one byte a number, in base64.

An annotation has no column for vectors, and the text of what is no caption is cut at 2,000 characters
(data_engine/annotation.py). 768 numbers are 2,048 characters as float16 and 1,024 as int8, so bytes it is: each vector
is scaled so that its largest number is 127. That moves no number by more than half a step, 1/254 of the largest,
and which vector was how long is lost. DuckDB reads it with `from_base64`.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]
Singles = NDArray[np.float32]

WIDEST = 1_500
"""Most numbers of a vector whose text is not cut."""


def codes_of(vectors: Singles) -> Codes:
    """The directions of finite vectors (n, d), d up to WIDEST, as bytes. A vector of zeros stays one."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


def to_text(code: Codes) -> str:
    """One vector's bytes (d,) as the text of a row."""
    return base64.b64encode(code.tobytes()).decode("ascii")
