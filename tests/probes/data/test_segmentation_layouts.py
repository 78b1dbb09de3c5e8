"""Layouts of segmentation data sets: pairs and classes of each, on miniatures of them and on real CamVid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probes.data.segmentation_layouts import CITYSCAPES, LAYOUTS, find_layout, open_segmentation
from tests.probes.small_segmentation import write_folders, write_pair


def _voc(root: Path) -> None:
    for split, names in (("train", ("2007_a", "2007_b")), ("val", ("2008_c",))):
        for seed, name in enumerate(names):
            write_pair(root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png", seed)
        listed = root / f"ImageSets/Segmentation/{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")


def _ade(root: Path) -> None:
    for split in ("training", "validation"):
        write_pair(root / f"images/{split}/x.jpg", root / f"annotations/{split}/x.png", 1, stored={0: 1, 1: 150, 2: 0})
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t9\t9\twall\n150\t0.1\t9\t9\tflag, pole\n"
    )


def _cityscapes(root: Path) -> None:
    for split in ("train", "val"):
        image = root / f"leftImg8bit/{split}/bonn/bonn_0_0_leftImg8bit.png"
        labels = root / f"gtFine/{split}/bonn/bonn_0_0_gtFine_labelIds.png"
        write_pair(image, labels, 1, stored={0: 7, 1: 33, 2: 29})


def _coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        for name in ("a", "b"):
            stored = {0: 0, 1: 181, 2: 92}
            write_pair(
                root / f"images/{split}/{name}.jpg", root / f"stuffthingmaps/{split}/{name}.png", 1, stored=stored
            )


MINIATURES: dict[str, tuple[Callable[[Path], None], int, dict[int, str]]] = {
    "voc": (_voc, 21, {0: "background", 1: "aeroplane", 2: "bicycle"}),
    "ade20k": (_ade, 150, {0: "wall", 1: "flag"}),
    "cityscapes": (_cityscapes, 19, {0: "road", 1: "bicycle"}),
    "coco-stuff27": (_coco, 27, {0: "person", 1: "solid", 2: "textile"}),
    "folders": (write_folders, 3, {0: "ground", 1: "red", 2: "blue"}),
}
"""How to write it, how many classes, and what the classes of `small_segmentation` are called; the others are ignored."""


@pytest.mark.parametrize("name", MINIATURES)
def test_a_layout_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    write, classes, named = MINIATURES[name]
    write(tmp_path)
    data = open_segmentation(tmp_path)
    assert data.layout == name and len(data.classes) == classes
    own = {**MINIATURES["folders"][2]}
    found = set(np.unique(data.train.labels(0, 64)).tolist())
    assert {data.classes[label] for label in found - {255}} == set(named.values())
    assert len(named) == len(own) or 255 in found


def test_every_layout_has_a_miniature_or_is_camvid() -> None:
    assert {layout.name for layout in LAYOUTS} == {*MINIATURES, "camvid"}


def test_folders_may_be_named_the_other_way_round(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pair(tmp_path / f"images/{split}/a.png", tmp_path / f"labels/{split}/a.png", 1)
    (tmp_path / "classes.txt").write_text("ground\nred\nblue\n")
    assert open_segmentation(tmp_path).layout == "folders"


def test_cocostuff_maps_as_the_reference_does(tmp_path: Path, shared_dir: Path) -> None:
    reference = json.loads((shared_dir / "reference/cocostuff27_mapping.json").read_text())
    _coco(tmp_path)
    table = open_segmentation(tmp_path).train.table
    assert [table.of_stored[label] for label in range(182)] == reference["fine_to_coarse"]
    assert list(table.classes) == reference["names"] and table.of_stored[255] == 255


def test_a_curated_list_chooses_pictures(tmp_path: Path) -> None:
    _coco(tmp_path)
    listed = tmp_path / "curated/val2017/Coco164kFull_Stuff_Coarse.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("b\n")
    data = open_segmentation(tmp_path)
    assert [pair.name for pair in data.scored.pairs] == ["b"] and len(data.train) == 2
    listed.write_text("b\nc\n")
    with pytest.raises(ValueError, match=r"1 pictures that .* names are not there, first c"):
        open_segmentation(tmp_path)


def test_a_list_that_names_missing_files_is_refused(tmp_path: Path) -> None:
    _voc(tmp_path)
    (tmp_path / "SegmentationClass/2008_c.png").unlink()
    with pytest.raises(ValueError, match=r"1 files that .*val\.txt names are not there, first .*2008_c\.png"):
        open_segmentation(tmp_path)


def test_cityscapes_scores_nineteen_classes_in_their_usual_order() -> None:
    assert list(CITYSCAPES) == sorted(CITYSCAPES)
    assert [*CITYSCAPES.values()][::18] == ["road", "bicycle"]


def test_ade20k_has_no_class_of_label_0(tmp_path: Path) -> None:
    _ade(tmp_path)
    table = open_segmentation(tmp_path).train.table
    assert [table.of_stored[label] for label in (0, 1, 150, 255)] == [255, 0, 149, 255]


def test_unknown_layouts_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown layout 'vocc'; did you mean voc"):
        find_layout(tmp_path, "vocc")
    with pytest.raises(ValueError, match=r"no segmentation data of a known layout; expected JPEGImages.*pascal/VOC"):
        find_layout(tmp_path)


def test_camvid_as_it_is(shared_dir: Path) -> None:
    """Twelve labels are stored, the last unlabelled; `folders` without a class list points to the layout's name."""
    root = shared_dir / "data/segmentation/camvid"
    data = open_segmentation(root, layout="camvid", split="test")
    assert (len(data.train), len(data.scored), len(data.classes)) == (12, 8, 11)
    with pytest.raises(ValueError, match="--segmentation-layout camvid"):
        open_segmentation(root)
