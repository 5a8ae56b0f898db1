"""The loss of UniCL, "Unified Contrastive Learning in Image-Text-Label Space" (Yang et al., CVPR 2022).

CLIP's loss takes every other pair of a batch for a negative, though "red star" is true of many images in
it. UniCL lets labels say which images and texts belong together (arXiv 2204.03610, section 3.2, equations
2 to 4): each image is to find all of its texts alike, and each text all of its images.
"""

from __future__ import annotations

from typing import Any


def unicl_loss(images: Any, texts: Any, positives: Any, scale: Any) -> Any:
    """Bidirectional contrastive loss of normalised features `images` (n, d) and `texts` (m, d), a scalar.

    `positives` (n, m) is true where a text belongs to an image; every row and every column needs one.
    `scale` multiplies the cosine similarities: the inverse of the temperature. The target of a row is
    uniform over its positives, as in the equations; the paper sums over the batch and both directions,
    here both are averaged, so the loss of n pairs with n labels is CLIP's. Columns may also be the
    distinct texts of a batch: a text that many images share then counts once.

    Raises ValueError where an image has no text or a text no image.
    """
    if not (positives.any(dim=1).all() and positives.any(dim=0).all()):
        raise ValueError("every image needs a text that belongs to it, and every text an image")
    logits = scale * images @ texts.T
    return (_one_way(logits, positives) + _one_way(logits.T, positives.T)) / 2


def _one_way(logits: Any, positives: Any) -> Any:
    """Mean cross-entropy between each row's softmax and its positives in equal shares."""
    targets = positives.to(logits.dtype)
    each = (targets * logits.log_softmax(dim=1)).sum(dim=1) / targets.sum(dim=1)
    return -each.mean()
