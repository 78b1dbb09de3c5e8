"""The sweep file: what it may say, how grids expand, and that every mistake is named where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.trainer.sweep.small_sweep import HEAD, ROWS, write_sweep
from trainer.config import changed_settings, load_config
from trainer.sweep.sweep_file import ProbeSettings, override, read_sweep_file

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "sweeps"


def read(tmp_path: Path, text: str) -> object:
    return read_sweep_file(write_sweep(tmp_path / "some.toml", text))


def test_rows_settings_and_probe(tmp_path: Path) -> None:
    probe = '[probe]\nheight = 96\nsequences = ["a", "b"]\n'
    sweep = read_sweep_file(write_sweep(tmp_path / "some.toml", 'base = "../b.toml"\n' + HEAD + probe + ROWS))
    assert (sweep.name, sweep.baseline, sweep.seeds) == ("some", "full", (0, 1))
    assert sweep.base == tmp_path / "../b.toml"
    assert dict(sweep.settings)["encoder.variant"] == "tiny_dino8" and dict(sweep.settings)["train.steps"] == 6
    assert sweep.probe == ProbeSettings("vos", "", (("height", 96), ("sequences", ("a", "b"))))
    full, random, third, raft = sweep.rows
    assert full.settings == () and full.title == "full" and full.trained
    assert not random.trained
    assert (third.title, third.settings, third.paper) == ("(c) no gradient term", (("loss.grad_weight", 0.0),), -1.5)
    assert raft.shards == "RAFT"


def test_grids_expand_to_every_combination_in_order(tmp_path: Path) -> None:
    text = """
[[grids]]
name = "g"
shards = "WIDE"
[grids.settings]
loss.alpha = [0.1, 1.0]
"data.offsets" = [[1], [-1, 1], []]
"""
    rows = read_sweep_file(write_sweep(tmp_path / "some.toml", text)).rows
    assert [row.settings for row in rows] == [
        (("loss.alpha", alpha), ("data.offsets", offsets)) for alpha in (0.1, 1.0) for offsets in ((1,), (-1, 1), ())
    ]
    assert [row.name for row in rows][:3] == [
        "g alpha=0.1 offsets=1",
        "g alpha=0.1 offsets=-1,1",
        "g alpha=0.1 offsets=all",
    ]
    assert {row.shards for row in rows} == {"WIDE"}


def test_the_first_row_is_the_baseline_unless_said_otherwise(tmp_path: Path) -> None:
    sweep = read_sweep_file(write_sweep(tmp_path / "some.toml", '[[rows]]\nname = "a"\n[[rows]]\nname = "b"\n'))
    assert sweep.baseline == "a" and sweep.seeds == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = [1]\n[[rows]]\nname = "a"', "unknown entry 'seed'; did you mean seeds"),
        ('[[rows]]\nname = "a"\nsetings = {}', "row 1: unknown entry 'setings'; did you mean settings"),
        ('[probe]\ntask = 3\n[[rows]]\nname = "a"', "probe: task = 3 must be a text in quotes"),
        ('[[rows]]\nname = "a"\ntrained_by = "b.py"', "baseline = 'a' is not trained here"),
        ("[[rows]]\ntitle = 'a'", "row 1: name is missing"),
        ("rows = 3", r"rows must be written as \[\[rows\]\]"),
        ("seeds = [0]", "nothing to sweep"),
        ('baseline = "ful"\n[[rows]]\nname = "full"', "baseline = 'ful' is no row; did you mean full"),
        ('[[rows]]\nname = "a"\nsource = "encoder"', "baseline = 'a' is not trained"),
        ('[[rows]]\nname = "a b"\n[[rows]]\nname = "a/b"', "names of their own.*a b, a/b"),
        ('seeds = [1, 1]\n[[rows]]\nname = "a"', "different whole numbers"),
        ('seeds = [true]\n[[rows]]\nname = "a"', "list of whole numbers"),
        (
            '[[rows]]\nname = "a"\nsource = "encoder"\nsettings = {"loss.alpha" = 1}',
            "takes no settings, shards or trained_by",
        ),
        (
            '[[rows]]\nname = "a"\nsource = "random"',
            "no feature source is called 'random'; did you mean random_decoder",
        ),
        ('[[rows]]\nname = "a"\nsettings = {"train.seed" = 1}', r"train.seed is the sweep's to set; write seeds"),
        ('[settings]\ndata.shards = "x"\n[[rows]]\nname = "a"', "data.shards is the sweep's to set"),
        ('[[rows]]\nname = "a"\nsettings = {"loss.alpha" = 2020-01-01}', "loss.alpha = 2020-01-01 must be a number"),
        ('[[rows]]\nname = "a"\nsettings = {"loss.alpha" = 1, loss.alpha = 2}', "names a setting twice"),
        ('[[grids]]\nname = "g"\nsettings = {"loss.alpha" = 0.1}', "loss.alpha = 0.1 must be a list"),
        ('[[grids]]\nname = "g"', "at least one list"),
        ("rows = [", "not valid TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "some.toml" in str(caught.value) and "\n" not in re.sub("valid TOML.*", "", str(caught.value))


def test_the_command_line_changes_what_rows_leave_open(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path / "some.toml", 'base = "b.toml"\n' + HEAD + "data.offsets = [1, 2]\n[probe]\nheight = 96\n" + ROWS
    )
    given = ("train.steps=9", "encoder.variant=demo_vit8", "seeds=[3]", "probe.height=160", "probe.sequences=['a']")
    sweep = read_sweep_file(path, base=Path("other.toml"), overrides=given)
    assert sweep.base == Path("other.toml") and sweep.seeds == (3,)
    settings = dict(sweep.settings)
    assert (settings["train.steps"], settings["encoder.variant"], settings["train.batch_size"]) == (9, "demo_vit8", 4)
    assert settings["data.offsets"] == (1, 2)
    assert dict(sweep.probe.options) == {"height": 160, "sequences": ("a",)}
    assert sweep.rows == read_sweep_file(path).rows
    for text, message in (
        ("train.steps", "KEY=VALUE"),
        ("seeds=3", "list of"),
    ):
        with pytest.raises(ValueError, match=message):
            read_sweep_file(path, overrides=[text])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml does not exist"):
        read_sweep_file(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_the_project_can_be_read(path: Path) -> None:
    sweep = read_sweep_file(path)
    assert sweep.base is not None and len(sweep.seeds) > 1
    for row in sweep.rows:
        load_config(sweep.base, [override(key, value) for key, value in (*sweep.settings, *row.settings)])


def test_table_3_is_whole() -> None:
    """The paper's ablations (a) to (i) beside the random decoder, with its differences to the full method; last a row of ours."""
    sweep = read_sweep_file(CONFIGS / "table3.toml")
    paper = {row.title: row.paper for row in sweep.rows}
    assert [title[:3] for title in paper if title.startswith("(")] == [f"({letter})" for letter in "abcdefghi"]
    assert list(paper.values()) == [None, -7.1, -9.1, -7.6, -1.5, -2.4, -0.5, -0.6, -1.7, -0.3, 0.0, None]
    configs = [
        load_config(sweep.base, [override(*each) for each in (*sweep.settings, *row.settings)]) for row in sweep.rows
    ]
    changed = [changed_settings(configs[0], config) for config in configs]
    assert [[line.split(":")[0] for line in lines] for lines in changed] == [
        *([], [], ["objective.name"], ["loss.alpha"], ["loss.grad_weight"], ["loss.flow_kind"], ["loss.flow_weight"]),
        *([], [], ["data.offsets"], ["data.offsets"], []),
    ]
    assert [row.shards for row in sweep.rows if row.shards] == ["RAFT", "SMURF", "WINDOW9", "TRUTH"]
