"""A text cut at the spans of its phrases, which may nest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Piece:
    """A stretch of a text: plain, or `group`, the number of the phrases that fill it, with `pieces` inside."""

    text: str = ""
    group: int | None = None
    pieces: list[Piece] = field(default_factory=list)


def cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[Piece], set[int]]:
    """`text` as pieces, and the numbers of the spans that stand in them.

    A span that lies in another nests in it. One that crosses another's border, is empty, or reaches past the
    end of the text has no piece.
    """
    order = sorted(
        (i for i, (start, end) in enumerate(spans) if 0 <= start < end <= len(text)),
        key=lambda i: (spans[i][0], -spans[i][1], i),
    )
    root = Piece()
    # Spans that are open at the present place, the innermost last, each with its end and how far it is written.
    opened: list[tuple[Piece, int]] = [(root, len(text))]
    at, placed = 0, set()

    def write(to: int) -> None:
        nonlocal at
        if to > at:
            opened[-1][0].pieces.append(Piece(text[at:to]))
            at = to

    for i in order:
        start, end = spans[i]
        while opened[-1][1] <= start:
            write(opened[-1][1])
            opened.pop()
        if end > opened[-1][1] or start < at:
            continue
        write(start)
        piece = Piece(group=i)
        opened[-1][0].pieces.append(piece)
        opened.append((piece, end))
        placed.add(i)
    while opened:
        write(opened[-1][1])
        opened.pop()
    return root.pieces, placed
