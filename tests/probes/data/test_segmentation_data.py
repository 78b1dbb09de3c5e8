"""Segmentation data: what is read, how labels become classes, and what is refused before a network runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.data.segmentation import LabelTable, square
from probes.data.segmentation_layouts import open_segmentation
from tests.probes.small_segmentation import SIZE, labels_of, write_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path / "data")
    return tmp_path / "data"


def test_pairs_classes_and_labels(root: Path) -> None:
    data = open_segmentation(root)
    assert data.layout == "folders" and data.classes == ("ground", "red", "blue")
    assert [pair.name for pair in data.train.pairs] == ["000", "001", "002", "003"]
    assert [pair.labels.name for pair in data.scored.pairs] == ["000.png", "001.png", "002.png"]
    picture, labels = data.scored.picture(0, 64), data.scored.labels(0, 64)
    assert picture.size == (64, 64) and np.array_equal(labels, labels_of(100)[:, 8:72])
    red = np.asarray(picture)[labels == 1]
    assert red[:, 0].min() > 200 and red[:, 2].max() < 80, "a picture and its labels are cut alike"


def test_the_square_is_the_middle_of_either_orientation() -> None:
    columns = Image.fromarray(np.tile(np.arange(12, dtype=np.uint8), (6, 1)))
    assert np.asarray(square(columns, 6, Image.Resampling.NEAREST))[0].tolist() == [3, 4, 5, 6, 7, 8]
    turned = columns.transpose(Image.Transpose.TRANSPOSE)
    assert np.asarray(square(turned, 6, Image.Resampling.NEAREST))[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert square(Image.new("L", (37, 91)), 24, Image.Resampling.NEAREST).size == (24, 24)


def test_labels_are_resized_without_inventing_classes(root: Path) -> None:
    assert set(np.unique(open_segmentation(root).train.labels(0, 33))) <= {0, 1, 2, 255}


def test_ignored_labels_become_255() -> None:
    table = LabelTable.plain(["a", "b"], (7, 255))
    assert table.convert(np.array([[0, 1, 7, 255]], np.uint8), Path("x.png")).tolist() == [[0, 1, 255, 255]]


def _rewrite(path: Path, labels: np.ndarray) -> None:
    Image.fromarray(labels.astype(np.uint8)).save(path)


def test_a_label_outside_the_class_list_is_refused(root: Path) -> None:
    labels = labels_of(2)
    labels[10, 10:13] = 9
    _rewrite(root / "trainannot" / "002.png", labels)
    with pytest.raises(
        ValueError, match=r"002\.png holds label 9 at 3 pixels, outside the class list of 3 .*--ignored"
    ):
        open_segmentation(root)
    assert open_segmentation(root, ignored=(9, 255)).train.labels(2, 64).max() == 255


def test_unequal_sizes_are_refused(root: Path) -> None:
    _rewrite(root / "valannot" / "001.png", labels_of(1)[:-4])
    with pytest.raises(ValueError, match=r"valannot/001\.png is 80x60, but its picture 001\.png is 80x64"):
        open_segmentation(root)


def test_labels_that_are_colours_are_refused(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (*SIZE, 3), np.uint8)).save(root / "valannot/001.png")
    with pytest.raises(ValueError, match="colour picture"):
        open_segmentation(root)


def test_a_picture_without_labels_is_refused(root: Path) -> None:
    (root / "valannot" / "001.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 pictures in .*val have no label map, first 001\.png.*expects"):
        open_segmentation(root)


def test_a_damaged_label_map_is_named(root: Path) -> None:
    path = root / "valannot" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cannot decode the annotation .*001\.png"):
        open_segmentation(root)


def test_a_split_without_labelled_pixels_is_refused(root: Path) -> None:
    for path in (root / "valannot").iterdir():
        _rewrite(path, np.full(SIZE, 255))
    with pytest.raises(ValueError, match=r"every label of the val split .* is ignored"):
        open_segmentation(root)


def test_empty_and_missing_folders_are_refused(root: Path) -> None:
    for path in (root / "val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no pictures in .*val; layout folders expects .*classes\.txt"):
        open_segmentation(root)
    with pytest.raises(ValueError, match=r"data/test is not a directory; layout folders expects"):
        open_segmentation(root, split="test")
    with pytest.raises(ValueError, match=r"missing is not a directory; expected JPEGImages.*; or .*\(camvid\)"):
        open_segmentation(root / "missing")


def test_a_missing_class_list_is_named(root: Path) -> None:
    (root / "classes.txt").rename(root / "names.txt")
    with pytest.raises(ValueError, match=r"no class list .*classes\.txt: write one class a line.*camvid"):
        open_segmentation(root)
    assert len(open_segmentation(root, classes_file=root / "names.txt").classes) == 3
    (root / "names.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="1 to 254 classes, not 0"):
        open_segmentation(root, classes_file=root / "names.txt")


def test_the_fingerprint_follows_files_and_classes(root: Path) -> None:
    def fingerprint(ignored: tuple[int, ...] = (255,)) -> str:
        return open_segmentation(root, ignored=ignored).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(ignored=(9, 255)) != first
    (root / "val/001.png").rename(root / "val/009.png")
    (root / "valannot/001.png").rename(root / "valannot/009.png")
    assert fingerprint() != first
