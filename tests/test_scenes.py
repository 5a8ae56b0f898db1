"""Scenes: the truth of a drawn world must be true, to the pixel and to the character."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import PIL.Image
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import ImageError, NewerFormatError, RecipeError, SourceError, StorageError
from data_engine.image import decode, inspect
from data_engine.ingest import scenes as scenes_format
from data_engine.scenes.language import captions
from data_engine.scenes.layout import MIN_VISIBLE
from data_engine.scenes.scene import Scene, make_scene
from data_engine.scenes.shapes import shape
from data_engine.scenes.sheet import contact_sheet
from data_engine.scenes.world import CLASS_NAMES, COLOURS, KINDS, NUMBERS, SIGN, SIZES, TONES, article, plural
from data_engine.scenes.write import as_dicts, from_dicts, make_scenes

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORLD = settings(max_examples=40, deadline=None)
places = st.tuples(st.integers(0, 2**31), st.integers(0, 10**6))
sizes = st.sampled_from([(320, 240), (240, 320), (128, 128), (97, 211), (480, 360)])


def scene_at(place: tuple[int, int], size: tuple[int, int] = (320, 240)) -> Scene:
    return make_scene(*place, size)


def mask_of(a: Annotation) -> np.ndarray:
    assert a.mask is not None
    return pycocotools.mask.decode(a.mask).astype(bool)


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def regions(scene: Scene) -> list[Annotation]:
    """The one row of each thing that says its kind."""
    return [a for a in scene.annotations if a.kind == "region" and a.granularity == "phrase"]


def phrases(scene: Scene) -> list[Annotation]:
    return [a for a in scene.annotations if a.kind == "phrase" and a.mask is None]


@WORLD
@given(places, sizes)
def test_the_same_place_gives_the_same_scene(place: tuple[int, int], size: tuple[int, int]) -> None:
    one, other = scene_at(place, size), scene_at(place, size)
    assert one.pixels.shape == (size[1], size[0], 3)
    assert one.pixels.dtype == np.uint8
    assert np.array_equal(one.pixels, other.pixels)
    assert as_dicts(one.annotations) == as_dicts(other.annotations)


def test_neighbouring_scenes_differ() -> None:
    pictures = {make_scene(seed, index).pixels.tobytes() for seed in range(3) for index in range(5)}
    assert len(pictures) == 15


@WORLD
@given(places, sizes)
def test_boxes_are_the_bounds_of_their_masks(place: tuple[int, int], size: tuple[int, int]) -> None:
    scene = scene_at(place, size)
    masks = [a for a in scene.annotations if a.mask is not None]
    for a in masks:
        assert a.mask["size"] == [size[1], size[0]]
        assert tuple(a.box) == bounds(mask_of(a))
        assert isinstance(a.parent, Annotation)
        assert a.parent.box == a.box
        assert a.parent.kind == a.kind
    # Every thing has one mask, and no pixel belongs to two.
    of_regions = [mask_of(a) for a in masks if a.kind == "region"]
    assert len(of_regions) == len(regions(scene)) == len(scene.layout.things)
    assert np.sum(of_regions, axis=0).max() <= 1


@WORLD
@given(places, sizes)
def test_every_thing_keeps_most_of_itself_in_view(place: tuple[int, int], size: tuple[int, int]) -> None:
    layout = scene_at(place, size).layout
    assert 1 <= sum(thing.kind != SIGN for thing in layout.things) <= 6
    for index, thing in enumerate(layout.things):
        whole = int(thing.stamp.solid.sum())
        assert (layout.owner == index).sum() >= MIN_VISIBLE * whole
        assert thing.x >= 0
        assert thing.x + thing.stamp.width <= size[0]
        assert thing.y >= 0
        assert thing.y + thing.stamp.height <= size[1]


@WORLD
@given(places)
def test_a_mask_covers_the_colour_that_its_words_say(place: tuple[int, int]) -> None:
    # The named colour (but for a little jitter, and apart from shaded parts) is seen under the mask.
    scene = scene_at(place)
    described = [a for a in scene.annotations if a.kind == "region" and a.granularity == "brief"]
    for a, thing in zip(described, scene.layout.things, strict=True):
        *_, colour, kind = str(a.text).split()
        assert (colour, kind) == (thing.colour, thing.kind)
        child = next(m for m in scene.annotations if m.mask is not None and m.parent is a.parent)
        away = np.linalg.norm(scene.pixels[mask_of(child)] - np.array(COLOURS[colour], dtype=float), axis=1)
        assert (away < 30).mean() > 0.25


@WORLD
@given(places, sizes)
def test_spans_spell_their_phrases(place: tuple[int, int], size: tuple[int, int]) -> None:
    scene = scene_at(place, size)
    assert {a.parent.granularity for a in phrases(scene)} == {"brief", "detailed", "more_detailed"}
    for a in phrases(scene):
        start, end = a.span
        assert a.parent.text[start:end] == a.text
        assert a.text
        assert a.text == a.text.strip()


@WORLD
@given(places, sizes)
def test_a_phrase_has_a_row_for_every_thing_that_its_words_fit(
    place: tuple[int, int], size: tuple[int, int]
) -> None:
    scene = scene_at(place, size)
    boxes: dict[tuple[str, tuple[int, int]], list[tuple[float, ...]]] = defaultdict(list)
    for a in phrases(scene):
        boxes[a.parent.text, a.span].append(tuple(a.box))
    for (caption, span), found in boxes.items():
        words = caption[slice(*span)].lower().split()
        fits = []
        for thing, region in zip(scene.layout.things, regions(scene), strict=True):
            known = {thing.kind, plural(thing.kind), thing.colour, thing.size, "a", "an", "the", *NUMBERS}
            if set(words) <= known:
                fits.append(tuple(region.box))
        assert Counter(found) == Counter(fits)
        if words[0] in NUMBERS:
            assert NUMBERS.index(words[0]) == len(found)
        if words[0] in ("a", "an"):
            assert len(found) == 1
            assert words[0] == article(words[1])


@WORLD
@given(places, sizes)
def test_every_noun_phrase_about_things_has_its_rows(place: tuple[int, int], size: tuple[int, int]) -> None:
    # Outside of quoted text, each kind that a caption names lies in exactly one phrase's span.
    scene = scene_at(place, size)
    nouns = "|".join(sorted({k for kind in CLASS_NAMES for k in (plural(kind), kind)}, key=len, reverse=True))
    for text in scene.annotations[:3]:
        spans = {a.span for a in phrases(scene) if a.parent is text}
        quoted = [m.span() for m in re.finditer(r'"[^"]*"', text.text)]
        for match in re.finditer(rf"\b({nouns})\b", text.text, re.IGNORECASE):
            if any(start <= match.start() < end for start, end in quoted):
                continue
            assert sum(start <= match.start() and match.end() <= end for start, end in spans) == 1


@WORLD
@given(places, sizes)
def test_the_longer_captions_name_every_thing(place: tuple[int, int], size: tuple[int, int]) -> None:
    scene = scene_at(place, size)
    every = Counter(tuple(a.box) for a in regions(scene)).keys()
    for granularity in ("detailed", "more_detailed"):
        named = {tuple(a.box) for a in phrases(scene) if a.parent.granularity == granularity}
        assert named == set(every)
    brief, detailed, more = (c.text for c in scene.captions)
    assert brief.count(".") == 1
    assert all(text[0].isupper() and text.endswith(".") for text in (brief, detailed, more))
    assert len(more) > len(brief)


@WORLD
@given(places)
def test_stated_relations_hold(place: tuple[int, int]) -> None:
    # Of two single things said to stand left, right, above or below, the centres of the boxes agree.
    scene = scene_at(place)
    centre = {
        (a.parent.text, a.span): ((a.box[0] + a.box[2]) / 2, (a.box[1] + a.box[3]) / 2)
        for a in phrases(scene)
    }
    for caption in scene.captions:
        spans = [p.span for p in caption.phrases if len(p.things) == 1]
        for first in spans:
            for second in spans:
                between = caption.text[first[1] : second[0]] if first[1] <= second[0] else ""
                (ax, ay), (bx, by) = centre[caption.text, first], centre[caption.text, second]
                if re.fullmatch(r" is (to the )?left of ", between):
                    assert ax < bx
                elif re.fullmatch(r" is (to the )?right of ", between):
                    assert ax > bx
                elif between == " is above ":
                    assert ay < by
                elif between == " is below ":
                    assert ay > by


@WORLD
@given(places, sizes)
def test_parents_stand_before_their_children_and_rows_are_accepted(
    place: tuple[int, int], size: tuple[int, int]
) -> None:
    scene = scene_at(place, size)
    rows = AnnotationRows("truth")
    assert rows.add("0" * 32, scene.annotations) == []
    table = rows.table()
    assert len(table) == len(scene.annotations)
    assert set(table["source"].to_pylist()) == {"truth"}
    ids = table["annotation_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def with_signs(count: int) -> list[Scene]:
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = make_scene(77, index)
        index += 1
        if any(thing.lines for thing in scene.layout.things):
            found.append(scene)
    return found


def test_quads_enclose_the_ink_and_little_else() -> None:
    for scene in with_signs(25):
        said = [a for a in scene.annotations if a.granularity == "ocr" and a.kind == "region"]
        signs = [thing for thing in scene.layout.things if thing.lines]
        assert [a.text for a in said] == [line.text for sign in signs for line in sign.lines]
        rest = iter(said)
        for sign in signs:
            ys, xs = np.nonzero(sign.ink > 25)
            points = np.stack([xs + 0.5 + sign.x, ys + 0.5 + sign.y], axis=1)
            inside = np.zeros(len(points), dtype=bool)
            for _ in sign.lines:
                a = next(rest)
                quad = np.array(a.quad).reshape(4, 2)
                low, high = quad.min(axis=0), quad.max(axis=0)
                assert np.allclose(a.box, [*low, *high], atol=0.011)
                # Distances to the four sides, positive inside of a clockwise quad.
                side = np.roll(quad, -1, axis=0) - quad
                normal = np.stack([-side[:, 1], side[:, 0]], axis=1) / np.linalg.norm(side, axis=1)[:, None]
                distance = np.einsum("pkx,kx->pk", points[:, None] - quad, normal)
                here = (distance > -0.75).all(axis=1)
                inside |= here
                # On each side some ink comes within three pixels.
                assert (distance[here].min(axis=0) < 3).all()
                # The text reads from the first corner to the second: left to right, at most 15 degrees off.
                assert side[0, 0] > 0
                assert abs(side[0, 1]) <= side[0, 0] * np.tan(np.radians(15.1))
                assert side[1, 1] > 0
            assert inside.all()


def test_all_text_in_the_picture_is_one_row_and_stands_in_the_long_captions() -> None:
    for scene in with_signs(10):
        (whole,) = [a for a in scene.annotations if a.kind == "text" and a.granularity == "ocr"]
        lines = [line.text for thing in scene.layout.things for line in thing.lines]
        assert whole.text == "\n".join(lines)
        for line in lines:
            assert line in scene.captions[1].text
            assert line in scene.captions[2].text


def test_a_real_text_recogniser_reads_the_signs() -> None:
    if importlib.util.find_spec("rapidocr") is None or importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("rapidocr is not installed")
    from rapidocr import RapidOCR

    engine = RapidOCR()
    wanted, read = [], []
    for scene in with_signs(10):
        found = engine(np.ascontiguousarray(scene.pixels[..., ::-1])).txts or ()
        seen = {text.replace(" ", "").lower() for text in found}
        lines = [line.text for thing in scene.layout.things for line in thing.lines]
        wanted += lines
        read += [line for line in lines if line.replace(" ", "").lower() in seen]
    assert len(read) >= 0.8 * len(wanted)


def test_capitals_on_signs_are_sixteen_pixels_high_or_more() -> None:
    heights = []
    for scene in with_signs(40):
        for sign in scene.layout.things:
            for line in sign.lines:
                if line.text.isupper():
                    # The quad of capitals alone has one pixel of air above and below.
                    heights.append(np.linalg.norm(line.quad[3] - line.quad[0]) - 2)
    assert len(heights) > 5
    assert min(heights) >= 16


def test_the_world_is_varied() -> None:
    scenes = [make_scene(4, index) for index in range(300)]
    things = [thing for scene in scenes for thing in scene.layout.things]
    assert {thing.kind for thing in things} == set(CLASS_NAMES)
    assert {thing.colour for thing in things if thing.kind != SIGN} == set(COLOURS)
    assert {thing.size for thing in things if thing.kind != SIGN} == set(SIZES)
    assert {tone for scene in scenes for tone in scene.layout.background.tones} == set(TONES)
    signed = sum(any(thing.lines for thing in scene.layout.things) for scene in scenes)
    assert 0.35 < signed / len(scenes) < 0.65
    assert any(scene.layout.hides for scene in scenes)
    openings = {scene.captions[0].text.split()[0] for scene in scenes}
    assert len(openings) >= 4
    assert max(Counter(scene.captions[1].text for scene in scenes).values()) < 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_fills_its_square(kind: str) -> None:
    points = np.concatenate([layer.points for layer in shape(kind) if layer.paint == "fill"])
    assert np.abs(points).max() == pytest.approx(1)


def test_no_two_kinds_have_the_same_outline() -> None:
    from data_engine.scenes.draw import stamp

    masks = {}
    for kind in KINDS:
        solid = stamp(kind, (200, 30, 30), 60, 0).solid
        masks[kind] = np.pad(solid, [(0, 64 - solid.shape[0]), (0, 64 - solid.shape[1])])
    for i, one in enumerate(KINDS):
        for other in KINDS[i + 1 :]:
            both = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
            assert both < 0.9, (one, other)


@pytest.mark.parametrize("size", [(95, 320), (320, 95), (5000, 320), (0, 0), (-5, 100)])
def test_sizes_that_make_no_scene_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match="pixels"):
        make_scene(0, 0, size)


def test_captions_name_identical_things_together() -> None:
    from data_engine.scenes.draw import Background
    from data_engine.scenes.language import Described

    things = [
        Described("star", "red", "small", (10, 10, 30, 30), 200),
        Described("star", "red", "small", (200, 10, 220, 30), 200),
        Described("star", "red", "large", (100, 100, 180, 180), 3000),
    ]
    rng = np.random.default_rng(0)
    brief, detailed, _ = captions(things, [], Background("plain", ("beige",)), 320, 240, rng)
    assert "three red stars" in brief.text.lower()
    assert "two small red stars" in detailed.text.lower()
    assert "a large red star" in detailed.text.lower()
    by_text = {detailed.text[slice(*p.span)].lower(): p.things for p in detailed.phrases}
    assert by_text["two small red stars"] == (0, 1)
    assert by_text["a large red star"] == (2,)


# Folders


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_has_the_same_bytes_whatever_the_count_start_and_workers(tmp_path: Path) -> None:
    make_scenes(tmp_path / "one", 12, seed=9, size=(128, 96))
    make_scenes(tmp_path / "again", 12, seed=9, size=(128, 96))
    assert contents(tmp_path / "one") == contents(tmp_path / "again")
    make_scenes(tmp_path / "part", 5, seed=9, size=(128, 96), start=4)
    one, part = contents(tmp_path / "one"), contents(tmp_path / "part")
    assert sorted(name for name in part if name.startswith("images/")) == [
        f"images/{i:06d}.jpg" for i in range(4, 9)
    ]
    assert all(one[name] == data for name, data in part.items() if name.startswith("images/"))
    assert one["truth.jsonl"].splitlines()[4:9] == part["truth.jsonl"].splitlines()


def test_workers_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_engine.scenes.write._CHUNK", 3)
    make_scenes(tmp_path / "one", 8, seed=3, size=(128, 96))
    make_scenes(tmp_path / "many", 8, seed=3, size=(128, 96), workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_making_scenes_again_replaces_manifest_and_truth(tmp_path: Path) -> None:
    make_scenes(tmp_path, 6, seed=1, size=(128, 96))
    make_scenes(tmp_path, 2, seed=2, size=(128, 96))
    manifest = json.loads((tmp_path / "scenes.json").read_text())
    assert (manifest["count"], manifest["seed"], manifest["size"]) == (2, 2, [128, 96])
    assert manifest["class_names"] == list(CLASS_NAMES)
    assert len((tmp_path / "truth.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [{"count": 0}, {"count": 1, "start": -1}, {"count": 1, "workers": 0}, {"count": 1, "seed": -1}],
)
def test_arguments_that_make_no_scenes_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(RecipeError) as caught:
        make_scenes(tmp_path, **{"seed": 0, **arguments})
    assert caught.value.hint
    assert not (tmp_path / "scenes.json").exists()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        make_scenes(tmp_path / "file" / "scenes", 1, seed=0)


@WORLD
@given(places)
def test_annotations_survive_jsonl(place: tuple[int, int]) -> None:
    scene = scene_at(place)
    dicts = json.loads(json.dumps(as_dicts(scene.annotations)))
    back = from_dicts(dicts)
    assert as_dicts(back) == as_dicts(scene.annotations)
    one, other = AnnotationRows("truth"), AnnotationRows("truth")
    one.add("a", scene.annotations)
    other.add("a", back)
    assert one.table().equals(other.table())


def test_a_parent_that_comes_later_is_refused() -> None:
    with pytest.raises(IndexError):
        from_dicts([{"kind": "region", "parent": 1}, {"kind": "region"}])


# Ingest


def test_ingest_gives_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_format, "UNIT_IMAGES", 4)
    make_scenes(tmp_path, 10, seed=5)
    assert scenes_format.detect(str(tmp_path))
    units = list(scenes_format.units(str(tmp_path)))
    assert [unit.index for unit in units] == [0, 1, 2]
    json.dumps([unit.what for unit in units])  # plain data, as it goes into fingerprints
    items = [item for unit in units for item in scenes_format.items(unit)]
    assert [item.key for item in items] == [f"images/{i:06d}.jpg" for i in range(10)]
    for index, item in enumerate(items):
        assert item.error is None
        data = Path(item.uri).read_bytes()
        scene = make_scene(5, index)
        assert as_dicts(item.labels(inspect(data))) == as_dicts(scene.annotations)
        difference = np.abs(decode(data).astype(int) - scene.pixels)
        assert difference.mean() < 4  # JPEG alone


def test_a_unit_changes_with_its_scenes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_format, "UNIT_IMAGES", 4)
    make_scenes(tmp_path, 4, seed=5, size=(128, 96))
    (before,) = scenes_format.units(str(tmp_path))
    make_scenes(tmp_path, 8, seed=5, size=(128, 96))
    longer = list(scenes_format.units(str(tmp_path)))
    assert longer[0] == before
    make_scenes(tmp_path, 4, seed=6, size=(128, 96))
    assert list(scenes_format.units(str(tmp_path))) != [before]


def test_other_folders_are_not_scenes(tmp_path: Path) -> None:
    assert not scenes_format.detect(str(tmp_path))
    assert not scenes_format.detect(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError):
        list(scenes_format.units(str(tmp_path / "nowhere")))
    with pytest.raises(SourceError):
        list(scenes_format.units(str(tmp_path)))


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ("not json", SourceError),
        ("[]", SourceError),
        ("{}", SourceError),
        ('{"format": "other", "generator": 1, "count": 1}', SourceError),
        ('{"format": "fde-scenes", "generator": 1, "count": 99}', SourceError),
        ('{"format": "fde-scenes", "generator": 1000, "count": 1}', NewerFormatError),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, manifest: str, error: type[Exception]
) -> None:
    make_scenes(tmp_path, 1, seed=0, size=(128, 96))
    (tmp_path / "scenes.json").write_text(manifest)
    with pytest.raises(error):
        list(scenes_format.units(str(tmp_path)))


def test_a_damaged_line_costs_one_scene(tmp_path: Path) -> None:
    make_scenes(tmp_path, 4, seed=0, size=(128, 96))
    lines = (tmp_path / "truth.jsonl").read_text().splitlines()
    lines[1] = lines[1][:50]
    outside = json.loads(lines[2])
    outside["file"] = "../../secret.jpg"
    lines[2] = json.dumps(outside)
    (tmp_path / "truth.jsonl").write_text("\n".join(lines) + "\n")
    (unit,) = scenes_format.units(str(tmp_path))
    items = list(scenes_format.items(unit))
    assert [item.error.reason if item.error else None for item in items] == [
        None, "bad_annotation", "unsafe_member", None,
    ]  # fmt: skip
    assert items[1].key == "truth.jsonl:2"


def test_truth_for_another_size_is_refused(tmp_path: Path) -> None:
    make_scenes(tmp_path, 1, seed=0, size=(128, 96))
    (unit,) = scenes_format.units(str(tmp_path))
    (item,) = scenes_format.items(unit)
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(buffer, "PNG")
    with pytest.raises(ImageError, match="64 x 64"):
        item.labels(inspect(buffer.getvalue()))


# The contact sheet


def test_a_sheet_shows_every_picture() -> None:
    scenes = [make_scene(1, index) for index in range(5)]
    sheet = contact_sheet([(s.pixels, as_dicts(s.annotations)) for s in scenes], columns=2, cell=200)
    assert sheet.width == 10 + 2 * 210
    assert sheet.height > 3 * 150
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100
    assert contact_sheet([]).size[0] > 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=300) | st.text(st.characters(), max_size=40), max_size=4),
    st.lists(st.floats(-500, 900, width=32), min_size=4, max_size=4),
)
def test_a_sheet_takes_any_text_and_any_box(texts: list[str], box: list[float]) -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    said = [{"kind": "text", "granularity": text[:9], "text": text} for text in texts]
    said += [{"kind": "region", "text": text, "box": box, "score": 0.5} for text in texts]
    said += [{"kind": "region", "text": text, "box": box, "quad": box * 2} for text in texts]
    assert contact_sheet([(pixels, said)], cell=80).width == 100


@pytest.mark.parametrize("text", ["\ud800", "\0", "a\nb\r\n\tc", "\u202eabc", "😀" * 50, "x" * 5000, " ", ""])
def test_a_sheet_takes_awkward_text(text: str) -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    said = [{"kind": "text", "text": text}, {"kind": "region", "text": text, "box": [1, 2, 30, 40]}]
    assert contact_sheet([(pixels, said)], cell=80).width == 100
