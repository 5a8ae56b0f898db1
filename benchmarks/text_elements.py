"""Texts taken apart per second, beside a plain `nlp(text)` loop with the whole pipeline.

python benchmarks/text_elements.py [texts]

Captions of drawn scenes with a share of repeats as captioners have: of brief texts of a web-scale set about half are
unique. Both sides must say the same of every text.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import spacy

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.image import Image
from data_engine.scenes.scene import make_scene
from specialists.noun_phrases import PARSERS
from specialists.text_elements import TextElements, elements


def main(count: int) -> None:
    captions = [
        a.text or ""
        for i in range(count // 2)
        for a in make_scene(0, i, (160, 120)).annotations
        if a.kind == "text" and a.granularity == "brief"
    ]
    said = np.random.default_rng(0).choice(captions, count).tolist()
    nlp = spacy.load(next(name for name in PARSERS if spacy.util.is_package(name)))
    specialist = TextElements()
    rows = AnnotationRows("captioner")
    images = [
        Image(f"{i:032x}", np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (4, 4, 3))) for i in range(count)
    ]
    for image, text in zip(images, said, strict=True):
        rows.add(image.image_id, [Annotation("text", text, "brief")])
    table = rows.table()
    start = time.process_time()
    ours = [
        made[0].text
        for i in range(0, count, 256)
        for made in specialist(images[i : i + 256], table[i : i + 256])
    ]
    middle = time.process_time()
    theirs = [json.dumps(elements(nlp(text)), ensure_ascii=False) for text in said]
    end = time.process_time()
    assert ours == theirs
    print(
        f"{count:,} texts, {len(set(said)):,} different: {count / (middle - start):,.0f} a second; plain loop "
        f"{count / (end - middle):,.0f}; ratio {(end - middle) / (middle - start):.1f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
