"""DAVIS directories: what is read, and what is refused with which words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.data.davis import find_resolution, open_davis, open_sequence, read_list
from tests.probes.small_davis import FRAMES, HEIGHT, WIDTH, write_labels, write_sequence


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_sequence(tmp_path, "boxes")
    return tmp_path


def annotation(root: Path, index: int, name: str = "boxes") -> Path:
    return root / "Annotations" / "480p" / name / f"{index:05d}.png"


def picture(root: Path, index: int, name: str = "boxes") -> Path:
    return root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg"


def test_a_palette_sequence(root: Path) -> None:
    (sequence,) = open_davis(root)
    assert (sequence.name, len(sequence), sequence.objects) == ("boxes", FRAMES, 2)
    assert (sequence.height, sequence.width) == (HEIGHT, WIDTH)
    labels = sequence.labels(1)
    assert labels.dtype == np.uint8
    assert labels[8, 11] == 1
    assert labels[8, 10] == 0
    assert labels[32, 57] == 2
    assert sequence.image(0).size == (WIDTH, HEIGHT)
    assert sequence.image(0).mode == "RGB"


def test_void_is_background_and_not_an_object(root: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:4], labels[10:20] = 255, 2
    write_labels(annotation(root, 0), labels)
    (sequence,) = open_davis(root)
    assert sequence.objects == 2
    assert set(np.unique(sequence.labels(0))) == {0, 2}


def test_black_and_white_masks_are_one_object(root: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:30, 5:30] = 255
    for index in range(FRAMES):
        Image.fromarray(mask).save(annotation(root, index))
    (sequence,) = open_davis(root)
    assert sequence.objects == 1
    np.testing.assert_array_equal(sequence.labels(3), mask // 255)
    Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(annotation(root, 0))
    np.testing.assert_array_equal(open_davis(root)[0].labels(0), mask // 255)
    Image.fromarray(mask).convert("1").save(annotation(root, 0))
    np.testing.assert_array_equal(open_davis(root)[0].labels(0), mask // 255)


def test_a_later_frame_with_void_only_stays_empty(root: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:4] = 255
    write_labels(annotation(root, 3), labels)
    assert not open_davis(root)[0].labels(3).any()


def test_2016_merges_objects(root: Path) -> None:
    (sequence,) = open_davis(root, year=2016)
    assert sequence.objects == 1
    np.testing.assert_array_equal(sequence.labels(2), open_davis(root)[0].labels(2) > 0)


def test_which_sequences(root: Path) -> None:
    for name in ("alpha", "beta"):
        write_sequence(root, name, frames=3)
    names = lambda **given: [sequence.name for sequence in open_davis(root, **given)]  # noqa: E731
    assert names() == ["alpha", "beta", "boxes"]
    assert names(sequences=["boxes", "alpha", "boxes"]) == ["boxes", "alpha"]
    for year, text in (
        ("2016", "/JPEGImages/480p/beta/00000.jpg /Annotations/480p/beta/00000.png\n"),
        ("2017", "boxes\nbeta\n"),
    ):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text(text)
    assert names() == ["boxes", "beta"]
    assert names(year=2016) == ["beta"]
    (root / "mine.txt").write_text("# held out\nalpha\n\n")
    assert names(list_file=root / "mine.txt") == ["alpha"]
    with pytest.raises(ValueError, match=r"'gamma'.*alpha, beta, boxes"):
        open_davis(root, sequences=["gamma"])
    (root / "empty.txt").write_text("#\n")
    with pytest.raises(ValueError, match="names no sequence"):
        read_list(root / "empty.txt")


def test_resolutions(root: Path) -> None:
    assert find_resolution(root) == "480p"
    (root / "JPEGImages" / "Full-Resolution").mkdir()
    assert find_resolution(root) == "480p"
    assert find_resolution(root, "Full-Resolution") == "Full-Resolution"
    with pytest.raises(ValueError, match="no resolution '240p'"):
        find_resolution(root, "240p")
    (root / "JPEGImages" / "480p").rename(root / "JPEGImages" / "240p")
    with pytest.raises(ValueError, match="--resolution"):
        find_resolution(root)
    with pytest.raises(
        ValueError,
        match=r"not a DAVIS directory: expected .*/JPEGImages/480p/<sequence>/\*\.jpg .*; DAVIS 2017 .* davischallenge\.org",
    ):
        find_resolution(root / "JPEGImages")


def test_fingerprint_follows_the_files(root: Path) -> None:
    before = open_davis(root)[0].fingerprint()
    assert open_davis(root)[0].fingerprint() == before
    write_sequence(root, "boxes", seed=9)
    assert open_davis(root)[0].fingerprint() != before


def _drop_first(root: Path) -> None:
    annotation(root, 0).unlink()


def _drop_later(root: Path) -> None:
    annotation(root, 3).unlink()


def _extra(root: Path) -> None:
    shutil.copy(annotation(root, 0), annotation(root, 77))


def _no_annotations(root: Path) -> None:
    shutil.rmtree(root / "Annotations" / "480p" / "boxes")


def _two_frames(root: Path) -> None:
    for index in range(2, FRAMES):
        picture(root, index).unlink()


def _other_size(root: Path) -> None:
    Image.new("L", (10, 12)).save(annotation(root, 4))


def _not_a_picture(root: Path) -> None:
    picture(root, 2).write_bytes(b"")


def _empty_first(root: Path) -> None:
    write_labels(annotation(root, 0), np.zeros((HEIGHT, WIDTH)))


def _grey_levels(root: Path) -> None:
    Image.open(annotation(root, 0)).point(lambda v: v * 60).convert("P").save(annotation(root, 0))


def _colours(root: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)).save(annotation(root, 0))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_drop_first, r"first frame 00000\.jpg has no annotation .*00000\.png"),
        (_drop_later, r"1 of 6 frames have no annotation, first 00003\.jpg"),
        (_extra, r"1 annotations without a frame, first 00077\.png"),
        (_no_annotations, "has no annotations: .* is not a directory"),
        (_two_frames, "has 2 frames: the probe needs at least 3"),
        (_other_size, r"00004\.png is 10x12, but 00000\.jpg is 96x64"),
        (_not_a_picture, r"cannot read the picture .*00002\.jpg"),
        (_empty_first, "no object on the first frame"),
        (_grey_levels, "labels up to 120: it looks like a palette picture"),
        (_colours, "is a colour picture"),
    ],
)
def test_bad_sequences_are_refused_by_name(root: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(root)
    with pytest.raises(ValueError, match=words) as refused:
        open_sequence(root, "480p", "boxes")
    assert "\n" not in str(refused.value)


def test_a_truncated_frame_is_named_when_it_is_read(root: Path) -> None:
    path = picture(root, 2)
    path.write_bytes(path.read_bytes()[:700])
    (sequence,) = open_davis(root)
    with pytest.raises(ValueError, match=r"cannot decode the frame .*00002\.jpg"):
        sequence.image(2)


def test_the_real_files(shared_dir: Path) -> None:
    root = shared_dir / "data" / "davis"
    if not root.is_dir():
        pytest.skip("no DAVIS clips in the reference data")
    sequences = open_davis(root)
    assert len(sequences) == 7
    for sequence in sequences:
        assert (sequence.height, sequence.width, sequence.objects, sequence.black_and_white) == (480, 854, 1, True)
        assert set(np.unique(sequence.labels(0))) == {0, 1}
