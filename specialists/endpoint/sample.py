"""Which images of a data set are asked about."""

from __future__ import annotations

import hashlib


def in_sample(image_id: str, share: float) -> bool:
    """Whether an image is of the sample of a share of all images, by a digest of its id alone.

    A smaller share is part of a larger one, and whoever asks with the same share asks about the same images.
    """
    digest = hashlib.sha256(f"endpoint sample {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
