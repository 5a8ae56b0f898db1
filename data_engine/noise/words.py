"""The words of noisy captions: attributes that are mistaken for one another, and text that describes nothing."""

from __future__ import annotations

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colours": (
        "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray",
    ),
    "sizes": ("small", "medium", "large"),
    "numbers": ("two", "three", "four", "five", "six"),
}  # fmt: skip
"""Categories of words that can stand for one another without a change of grammar (so not "one")."""

BEFORE = ("Stock photo: ", "Photo credit unknown. ", "Royalty-free image: ", "Click to enlarge: ")
AFTER = (
    " Stock photo, all rights reserved.",
    " Click to enlarge.",
    " Image may be subject to copyright.",
    " Free shipping on all orders.",
    " Download now in high resolution.",
)
"""Boilerplate, as it stands before and after a caption."""

FILE_NAMES = ("IMG_{:04d}.jpg", "DSC{:05d}.JPG", "photo-{:d}.png", "Screenshot {:d}.png")
SHOP = ("{} - buy online", "{} | free shipping", "{} for sale, best price", "Buy {} now")
KEYWORDS = ("stock", "photo", "image", "free", "download", "wallpaper", "hd")
"""Alt text: names of files, offers of a thing, and what is added to lists of keywords."""

EMPTY = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "have",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "one",
        "or",
        "over",
        "says",
        "some",
        "that",
        "the",
        "their",
        "there",
        "this",
        "to",
        "two",
        "under",
        "with",
    ]
)
"""Words that no one takes for a keyword."""
