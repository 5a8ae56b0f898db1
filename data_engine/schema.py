"""The tables of a data set, as Arrow schemas. One annotation row is one statement about one image.

The schema is the format: a change here that an older reader cannot read raises `FORMAT_VERSION`.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT_VERSION = 1

KINDS = ("text", "region", "phrase", "image")
TEXT_GRANULARITIES = ("brief", "detailed", "more_detailed", "class", "ocr")
CHANGE = "change"
MEMBER = "member"
ELEMENTS = "elements"
REVIEW = "review"
REVIEWER = "human-review"
"""The source of what people marked as good or bad while they looked at the data set (docs/viewer.md)."""

REGION_GRANULARITIES = ("phrase", "brief", "noun_chunk", "ocr", "proposal")

BOX = pa.list_(pa.float32(), 4)
"""x0, y0, x1, y1 in pixels of the image as it is shown (EXIF orientation applied)."""

QUAD = pa.list_(pa.float32(), 8)
"""Four corners x, y, clockwise from the text's own top left, in the same pixels."""

MASK = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
"""COCO run-length encoding: size is (height, width), counts the compressed string."""

SPAN = pa.list_(pa.int32(), 2)
"""Start and end of the phrase in the parent's text, in Unicode code points; the end is exclusive."""

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("keys", pa.list_(pa.string()), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("bytes", pa.large_binary()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("metadata", pa.string()),
    ]
)
"""`image_id` is the first 32 hex digits of the SHA-256 of the image file's bytes, so identical bytes
are one row with several `keys` (the names that the source gives it). `uri` names the file that holds
the bytes, `offset` (null: the whole file) and `length` where in it; `bytes` is filled instead when the
data set was ingested with its images embedded. `metadata` is JSON as the source had it."""

ANNOTATIONS = pa.schema(
    [
        pa.field("annotation_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("granularity", pa.string()),
        pa.field("text", pa.string()),
        pa.field("parent_id", pa.string()),
        pa.field("span", SPAN),
        pa.field("box", BOX),
        pa.field("quad", QUAD),
        pa.field("mask", MASK),
        pa.field("score", pa.float32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
    ]
)
"""What the columns say together:

- a text: kind `text`, `text` and its granularity (`class`: an image-level label; `ocr`: all the text
  read in the image as one string).
- a region: kind `region`, `box` and `text` (`proposal`: a box without text; `ocr`: a line of text in
  the image, with its `quad` too). A further text for the same region repeats the box and names the
  region's row as its parent.
- a phrase: kind `phrase`, `text`, the `span` that it fills in the text `parent_id`, and one `box`; a
  phrase with three boxes is three rows.
- a mask: `mask` and its `box`, no `text`; kind of, and parent, the region or phrase it belongs to.
- a change that the noise model made: kind of, and parent, the statement changed, granularity `change`,
  `text` its name.
- a member of a fused region or merged statement: kind `region` whatever the statement's, granularity
  `member`, parent the statement, and as `text` the `annotation_id` of a row that it was made from; no box.
- a reason of a merge: kind `region`, granularity `change`, `text` the reason, parent the merged statement or
  the one that was left out.
- what a text is made of: kind `text`, granularity `elements`, parent the text, and as `text` JSON.
- a measure of the picture itself: kind `image`, granularity its name (`sharpness`, `unsafe`, ...), and its
  `score`, or where that does not lie in 0..1, its `text`.
- a score by a model that judges statements: `score` alone; kind of, and parent, the statement judged.
- a person's mark: such a score, 1 (good) or 0 (bad), of source `human-review` and granularity `review`.

`score` lies in 0..1 and is null where a source has none (people do not score)."""

FAILURES = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("key", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
"""One row per image that a stage could not use. `stage` is `ingest` or a specialist's name; `image_id`
is null when the bytes could not even be read; `reason` is one short code of `docs/failures.md`."""

VERDICTS = pa.schema(
    [
        pa.field("annotation_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("dropped_by", pa.string()),
        pa.field("value", pa.float32()),
        pa.field("round", pa.int32(), nullable=False),
    ]
)
"""Each annotation's fate: kept, or the name of the first filter that dropped it and the value that
the filter measured, where it measures one."""

RUNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("command", pa.string(), nullable=False),
        pa.field("recipe", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("started", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("units_done", pa.int64(), nullable=False),
        pa.field("units_skipped", pa.int64(), nullable=False),
        pa.field("units_failed", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("annotations", pa.int64(), nullable=False),
        pa.field("failures", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("user", pa.string()),
        pa.field("host", pa.string()),
        pa.field("arguments", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("recipe_digest", pa.string()),
        pa.field("recipe_json", pa.string()),
        pa.field("runner", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("units_redone", pa.int64()),
        pa.field("cpus", pa.float64()),
        pa.field("gpus", pa.float64()),
        pa.field("actor_seconds", pa.float64()),
        pa.field("cpu_hours", pa.float64()),
        pa.field("gpu_hours", pa.float64()),
        pa.field("exit_code", pa.int64()),
        pa.field("error", pa.string()),
    ]
)
"""One row per stage of each invocation that did work; `seconds` is the whole invocation's, by the clock.

`status` is `done`, `incomplete`, `failed`, `interrupted`, or `lost` for a driver that ended without a word, whose
record is then made of its last sign of life, by the next driver. `arguments` is the command line, `versions` JSON by
package, `recipe_json` the recipe as it was checked; secrets are blanked in all of them. `units_redone` counts units
that were begun again after a death. `cpus` and `gpus` are those of one actor, `actor_seconds` the time that all
actors of the stage were there, and the hours their product. What was added later (from `user` on) is null in the
records of older versions."""

ROUNDS = pa.schema(
    [
        pa.field("round", pa.int32(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("decides", pa.bool_(), nullable=False),
        pa.field("change", pa.float64()),
        pa.field("change_low", pa.float64()),
        pa.field("change_high", pa.float64()),
        pa.field("accepted", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""What a round of refinement came to, measured on its held-out images: a row per subject (`raw`, `kept`, `merged-1`,
`student-1`, ...) and measure. `low` to `high` is the interval that drawing the images anew gives; `change` is
against what the round began with. `accepted` and `reason` are the round's and the same in all of its rows."""
