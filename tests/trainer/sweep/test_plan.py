"""Planning: everything that can be known is checked before the first run, and every complaint names its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.sweep.small_sweep import HEAD, ROWS, write_sweep
from tests.trainer.training_set import write_training_set
from trainer.config import load_config, to_toml
from trainer.config_sections import DataConfig
from trainer.shard_sets import ShardSets, open_sets
from trainer.sweep import plan as planning
from trainer.sweep.plan import SweepPlan, parse_sets, plan_sweep
from trainer.sweep.sweep_file import read_sweep_file


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")


def planned(tmp_path: Path, shards: Path | None, text: str = HEAD + ROWS, **sets: Path) -> SweepPlan:
    places = [] if shards is None else [str(shards)]
    by_name = {name: str(place) for name, place in sets.items()}
    return plan_sweep(read_sweep_file(write_sweep(tmp_path / "some.toml", text)), tmp_path / "out", places, by_name)


def test_every_row_and_seed_becomes_a_run(tmp_path: Path, shards: Path) -> None:
    plan = planned(tmp_path, shards, RAFT=shards)
    assert [run.name for run in plan.runs] == [
        f"{row}, seed {seed}" for row in ("full", "no gradient", "raft") for seed in (0, 1)
    ]
    assert [run.config.train.seed for run in plan.runs] == [0, 1] * 3
    assert plan.runs[2].config.loss.grad_weight == 0.0 and plan.runs[0].config.loss.grad_weight == 1.0
    assert {run.config.data.shards for run in plan.runs} == {str(shards)}
    assert not (tmp_path / "out").exists()


def test_the_base_lies_under_settings_and_settings_under_rows(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "base.toml").write_text("[loss]\nalpha = 0.5\nsigma = 0.2\nflow_weight = 0.3\n")
    text = 'base = "base.toml"\n' + HEAD + "loss.sigma = 0.3\nloss.flow_weight = 0.4\n" + ROWS
    loss = (
        planned(tmp_path, shards, text + 'settings = { "loss.flow_weight" = 0.5 }\n', RAFT=shards).runs[-1].config.loss
    )
    assert (loss.alpha, loss.sigma, loss.flow_weight) == (0.5, 0.3, 0.5)


def test_a_row_without_its_set_is_left_out_with_what_to_give(tmp_path: Path, shards: Path) -> None:
    plan = planned(tmp_path, shards)
    assert {run.row.name for run in plan.runs} == {"full", "no gradient"}
    assert plan.left_out["raft"] == "needs the shard set RAFT: give SHARDS_RAFT=dir (--set RAFT=DIR)"


def test_settings_of_a_row_that_is_left_out_are_checked_too(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ValueError, match=r"row 'raft': unknown setting 'loss.alhpa'; did you mean loss.alpha"):
        planned(tmp_path, shards, HEAD + ROWS + 'settings = { "loss.alhpa" = 1.0 }\n')


def test_each_set_is_opened_once(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[DataConfig] = []
    real = planning.open_sets

    def counted(data: DataConfig) -> ShardSets:
        opened.append(data)
        return real(data)

    monkeypatch.setattr(planning, "open_sets", counted)
    planned(tmp_path, shards, RAFT=shards)
    assert [data.sets for data in opened] == [(str(shards),)]


def test_rows_may_be_trained_on_several_sets_and_on_addresses(tmp_path: Path, shards: Path) -> None:
    """The identity is the one that a run writes into its log, so that a changed set is noticed at the next start."""
    pytest.importorskip("fsspec")
    other = write_training_set(tmp_path / "other", samples=7)
    file = read_sweep_file(write_sweep(tmp_path / "some.toml", HEAD + ROWS))
    both = plan_sweep(file, tmp_path / "out", [str(shards), str(other)], {}).runs[0]
    assert both.config.data.sets == (str(shards), str(other))
    assert both.shards == open_sets(both.config.data).identity and both.shards.count("+") == 1
    remote = plan_sweep(file, tmp_path / "out", [f"file://{shards}"], {}).runs[0]
    assert remote.config.data.sets == (f"file://{shards}",) and "blocks" in remote.shards


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('"train.stepz" = 3', "row 'raft': unknown setting 'train.stepz'; did you mean train.steps"),
        ('"loss.flow_kind" = "l3"', "row 'raft': loss.flow_kind = 'l3' must be one of"),
        ('"data.offsets" = [7]', r"row 'raft': data.offsets = \[7\]"),
        ('"views.image_size" = 40', "row 'raft': views.image_size = 40 does not suit tiny_dino8"),
        ('"encoder.variant" = "tiny_dino9"', "row 'raft': no encoder is called 'tiny_dino9'"),
        ('"encoder.init" = "pretrained", "encoder.weights" = "none.pth"', "row 'raft': encoder.weights = 'none.pth'"),
        ('"data.source_size" = 999', "row 'raft': data.source_size = 999"),
        ('"train.device" = "cuda:1"', "row 'raft': train.device = 'cuda:1': a sweep gives"),
    ],
)
def test_what_a_run_would_stumble_over_is_said_before(
    tmp_path: Path, shards: Path, settings: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, shards, HEAD + ROWS + f"settings = {{ {settings} }}\n", RAFT=shards)


def test_a_mistake_in_the_common_settings_is_no_rows_fault(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ValueError, match=r"some\.toml: unknown setting 'loss.alhpa'"):
        planned(tmp_path, shards, HEAD + "loss.alhpa = 1\n" + ROWS)


def test_sets_must_be_there_and_wanted(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ValueError, match="needs a shard set 'RAFD'; did you mean RAFT"):
        planned(tmp_path, shards, RAFD=shards)
    with pytest.raises(ValueError, match="row 'raft': no shard set at"):
        planned(tmp_path, shards, RAFT=tmp_path / "none")
    with pytest.raises(ValueError, match="use --shards DIR"):
        planned(tmp_path, None)
    with pytest.raises(ValueError, match="the baseline 'raft' needs the shard set RAFT"):
        planned(tmp_path, shards, HEAD.replace('"full"', '"raft"') + ROWS)


def test_sets_on_the_command_line() -> None:
    assert parse_sets(("RAFT=a/b", "W=c=d")) == {"RAFT": "a/b", "W": "c=d"}
    with pytest.raises(ValueError, match="NAME=DIR"):
        parse_sets(("RAFT",))


@pytest.mark.parametrize(
    ("setting", "logged", "message"),
    [
        ("loss.alpha=0.5", "", r"no gradient, seed 1 \(loss.alpha: 0.5 -> 1.0"),
        (
            "train.steps=9",
            '{"event": "step", "step": 9, "loss": 1.0}\n',
            r"no gradient, seed 1 \(train.steps: 6, but 9",
        ),
        (
            "train.steps=6",
            '{"event": "start", "step": 0, "shards": "other"}\n',
            "no gradient, seed 1 .another shard set",
        ),
    ],
)
def test_a_run_started_otherwise_is_refused_by_name(
    tmp_path: Path, shards: Path, setting: str, logged: str, message: str
) -> None:
    run = planned(tmp_path, shards).runs[3]
    run.directory.mkdir(parents=True)
    held = tmp_path / "held.toml"
    held.write_text(to_toml(run.config))
    (run.directory / "config.toml").write_text(to_toml(load_config(held, [setting])))
    (run.directory / "log.jsonl").write_text(logged)
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, shards)
