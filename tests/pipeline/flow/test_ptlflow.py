"""Networks of ptlflow behind the estimator seam, with a stand-in for the package: what models are given, what is taken of theirs."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.flow.batching import PairEstimator
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.flow.ptlflow import PtlflowChoice, PtlflowNetwork
from pipeline.flow.weights import ptlflow_zoo
from pipeline.window import Window
from shards.reader import ShardSet
from tests.common.download_server import serving
from tests.pipeline.extract.small_extraction import make_videos

STUB = Path(__file__).with_name("ptlflow_stub")
SIDE = 128


def forget() -> None:
    for name in ("ptlflow", "jsonargparse"):
        sys.modules.pop(name, None)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in is what `import ptlflow` finds, here and in processes that are started."""
    forget()
    monkeypatch.syspath_prepend(STUB)
    yield
    forget()


def window(*colours: tuple[int, int, int], offsets: tuple[int, ...] = (-1, 1)) -> Window:
    """Flat frames: the anchor, then its neighbours."""
    frames = [np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours]
    k = len(offsets)
    return Window("v", Path("v"), offsets, 0, tuple(range(1, k + 1)), 0.0, (0.0,) * k, frames[0], np.stack(frames[1:]))


def made(name: str, **options: object) -> tuple[PairEstimator, torch.nn.Module]:
    estimator = choose(f"ptlflow:{name}", EstimatorOptions(**{"weights": "random:3", **options})).build()  # type: ignore[arg-type]
    assert isinstance(estimator, PairEstimator) and isinstance(estimator.network, PtlflowNetwork)
    return estimator, estimator.network.model


def saved(path: Path, gain: float) -> str:
    torch.save({"state_dict": {"gain": torch.tensor([gain])}, "epoch": 3}, path)
    return str(path)


def test_frames_arrive_as_ptlflow_has_them(package: None, capsys: pytest.CaptureFixture[str]) -> None:
    """BGR in 0..1, anchor first; flow comes back in pixels at the size of the frames."""
    estimator, model = made("shift", extra={"iterations": "5"})
    gain = model.get_parameter("gain").item()
    anchor, earlier, later = (10, 20, 30), (61, 0, 30), (10, 20, 81)
    flow = estimator.estimate([window(anchor, earlier, later)])[0].flow_kchw
    assert flow.shape == (2, 2, SIDE, SIDE) and flow.dtype == np.float32
    assert np.allclose(flow[0, :, 5, 7], [0, 51 / 255 * gain * 5], atol=1e-6), "dy of the earlier one: red"
    assert np.allclose(flow[1, :, 5, 7], [51 / 255 * gain * 5, 0], atol=1e-6), "dx of the later one: blue"
    assert model.seen == [(1, 2, 3, SIDE, SIDE), (2, 2, 3, SIDE, SIDE)], "one pair is tried when it is built"
    assert 0 <= model.lowest < model.highest <= 1 and not model.autocast  # type: ignore[operator]
    assert capsys.readouterr().out == "", "a model's remarks stay out of what machines read"


def test_batches_and_half_precision(package: None) -> None:
    estimator, model = made("shift", precision="bf16", extra={"batch_pairs": "3"})
    estimator.estimate([window((0, 0, 0), (9, 9, 9), (1, 1, 1)), window((5, 5, 5), (9, 9, 9), (1, 1, 1))])
    assert [shape[0] for shape in model.seen] == [1, 3, 1] and model.autocast  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="precision tf32 exists on CUDA devices only"):
        made("shift", precision="tf32")


def test_the_way_back_and_its_confidence(package: None) -> None:
    estimator, model = made("shift", keep_reverse=True, keep_confidence=True)
    (result,) = estimator.estimate([window((0, 0, 0), (90, 0, 30), (0, 0, 0))])
    assert result.reverse_kchw is not None and result.confidence_khw is not None
    assert np.abs(result.flow_kchw).max() > 0 and np.array_equal(result.reverse_kchw, -result.flow_kchw)
    ways = torch.from_numpy(result.flow_kchw), torch.from_numpy(result.reverse_kchw)
    assert np.array_equal(result.confidence_khw, round_trip_confidence(*ways).numpy())
    assert [shape[0] for shape in model.seen] == [2, 4]  # type: ignore[union-attr]
    plain = choose("ptlflow:shift", EstimatorOptions("random:3", extra={"confidence": "none"}, keep_confidence=True))
    assert plain.statement()["confidence"] == "none"


def test_a_network_of_three_frames_gets_the_other_side_too(package: None) -> None:
    estimator, model = made("memfof")
    gain = model.get_parameter("gain").item()
    colours = ((0, 0, 0), (51, 0, 0), (0, 0, 102), (102, 0, 0), (0, 0, 51))
    flow = estimator.estimate([window(*colours, offsets=(-1, 1, 2, -2))])[0].flow_kchw[..., 0, 0]
    # dx: blue of the neighbour itself; dy: red of the neighbour on the other side.
    assert np.allclose(flow, gain * np.array([[0, 0], [0.4, 0.2], [0, 0], [0.2, 0.4]]), atol=1e-6)
    assert model.seen[-1] == (4, 3, 3, SIDE, SIDE)  # type: ignore[index]
    with pytest.raises(
        ValueError,
        match=r"memfof takes frames on both sides .* 2 needs -2 beside it, and the offsets are -1, 1, 2",
    ):
        estimator.estimate([window(*colours[:4], offsets=(-1, 1, 2))])
    for asked in ({"keep_reverse": True}, {"keep_confidence": True}, {"extra": {"confidence": "round-trip"}}):
        with pytest.raises(ValueError, match="takes the frames before and after the anchor"):
            made("memfof", **asked)
    choice = choose("ptlflow:memfof", EstimatorOptions("random:0"))
    assert choice.statement()["frames"] == 3 and choice.smallest_side_px == 225


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shifft", {}, "ptlflow has no model 'shifft'; did you mean shift"),
        ("streamflow", {}, "ptlflow:streamflow cannot be a teacher here: it relates four frames in a row"),
        ("memflow", {}, "it remembers earlier calls"),
        (
            "shift",
            {"weights": None},
            r"no default weights; give --weights NAME \(things, plain\), a file, or random:SEED",
        ),
        ("shift", {"weights": "thing"}, "names no checkpoint 'thing' for shift; did you mean things"),
        ("shift", {"weights": "things"}, "fetch it with `python -m pipeline weights get ptlflow:shift:things`"),
        ("shift", {"weights": "/no/such.ckpt"}, r"no weights file at /no/such\.ckpt"),
        ("shift", {"extra": {"itters": "3"}}, "ptlflow:shift has no option 'itters'; did you mean iters"),
        (
            "shift",
            {"extra": {"iters": "many"}},
            'ptlflow:shift: .*Parser key "model.iters": Expected an int. Got value: many',
        ),
        ("shift", {"extra": {"batch_pairs": "0"}}, "batch_pairs must be a whole number of at least 1"),
        ("shift", {"extra": {"confidence": "high"}}, "confidence must be one of auto, none, round-trip"),
        ("shift", {"precision": "fp8"}, "precision must be one of"),
        ("shift", {"device": "cuda:99"}, "torch sees"),
        ("backbone", {}, "it wants weights of its backbone"),
        ("splatflow", {}, r"splatflow could not be made \(ModuleNotFoundError: Problem .*No module named 'cupy'\)"),
        (
            "coarse",
            {},
            r"gives flows of shape \[1, 1, 2, 128, 128\] for 1 pairs of 256×256 px, not \[1, 1, 2, 256, 256\]",
        ),
        ("several", {}, "gives 3 flows for a pair: it is a network of several frames"),
        ("nameless", {}, "gives no tensor 'flows'"),
        ("overflows", {}, "gives flow that is not finite in fp32; its weights are damaged"),
        ("overflows", {"precision": "bf16"}, "not finite in bf16; use --precision fp32"),
        (
            "crashes",
            {},
            r"cannot run on 2 frames here \(IndexError: index 2 is out of bounds for dimension 1 with size 2\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, object], message: str
) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=message) as refused:
        made(name, **options)
    assert "\n" not in str(refused.value)


def test_a_network_that_cannot_take_small_frames_is_tried_on_larger_ones(package: None) -> None:
    _, model = made("large")
    assert [shape[-1] for shape in model.seen] == [128, 256]  # type: ignore[union-attr]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptlflow_zoo, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'flowfeat-shards\[ptlflow\]'"):
        choose("ptlflow:dpflow", EstimatorOptions("random:0"))
    with pytest.raises(ValueError, match=r"no flow estimator is called 'ptflow:dpflow'"):
        choose("ptflow:dpflow")


def test_a_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptlflow.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    forget()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot be imported \(RuntimeError: operator torchvision::nms does not exist\)"
    ):
        choose("ptlflow:dpflow", EstimatorOptions("random:0"))


def test_the_statement_names_all_that_shapes_the_flow(package: None, tmp_path: Path) -> None:
    one = choose(
        "ptlflow:shift", EstimatorOptions(saved(tmp_path / "one.ckpt", 0.5), extra={"scale": "2", "iterations": "3"})
    )
    assert isinstance(one, PtlflowChoice) and pickle.loads(pickle.dumps(one)) == one
    weights = one.statement()["weights"]
    assert one.statement() == {
        "network": "shift", "ptlflow": "0.4.2", "weights": weights, "precision": "fp32", "confidence": "none", "frames": 2,
        "option_scale": "2", "option_iterations": "3",
    }  # fmt: skip
    assert isinstance(weights, str) and weights.startswith("sha256:")
    again = choose("ptlflow:shift", EstimatorOptions(saved(tmp_path / "copy.ckpt", 0.5)))
    other = choose("ptlflow:shift", EstimatorOptions(saved(tmp_path / "other.ckpt", 0.25)))
    assert again.statement()["weights"] == weights != other.statement()["weights"]
    assert one.on_device("cpu") == one and replace(one, batch_asked=7).statement() == one.statement()


def test_weights_that_change_or_do_not_fit(package: None, tmp_path: Path) -> None:
    choice = choose("ptlflow:shift", EstimatorOptions(saved(tmp_path / "w.ckpt", 0.5)))
    saved(tmp_path / "w.ckpt", 0.75)
    with pytest.raises(ValueError, match=r"w\.ckpt has changed since this run began"):
        choice.build()
    torch.save({"state_dict": {"bias": torch.zeros(1)}}, tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=r"w\.ckpt does not fit ptlflow:shift \(RuntimeError: .*gain"):
        choose("ptlflow:shift", EstimatorOptions(str(tmp_path / "w.ckpt")))
    (tmp_path / "w.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"w\.ckpt does not fit ptlflow:shift"):
        choose("ptlflow:shift", EstimatorOptions(str(tmp_path / "w.ckpt")))
    torch.save({"state_dict": {"gain": saved}}, tmp_path / "w.ckpt")  # a function: code of ours, or of a stranger
    with pytest.raises(
        ValueError, match=r"does not fit ptlflow:shift: it holds something else than tensors"
    ) as refused:
        choose("ptlflow:shift", EstimatorOptions(str(tmp_path / "w.ckpt")))
    assert "weights_only" not in str(refused.value) and "trust" not in str(refused.value), "torch's advice is not ours"


def test_choosing_leaves_the_gpu_alone(package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GPU is for the process that works on it: a context in the parent, or on the first GPU in every process, is memory lost."""
    content = {"state_dict": {"gain": torch.tensor([0.5])}}
    facts = {"train_size": (432, 960), "extra_params": {"margin": 2.0}, "lr": 1e-4}
    torch.save({**content, "hyper_parameters": facts}, tmp_path / "w.ckpt")
    touched: list[object] = []
    load = torch.load

    def loading(path: Path, map_location: object, weights_only: bool) -> object:
        touched.append(str(map_location))
        return load(path, map_location="cpu", weights_only=weights_only)

    with monkeypatch.context() as two_gpus:
        two_gpus.setattr(torch.cuda, "is_available", lambda: True)
        two_gpus.setattr(torch.cuda, "device_count", lambda: 2)
        two_gpus.setattr(torch.cuda, "_lazy_init", lambda: touched.append("initialised"))
        two_gpus.setattr(torch, "load", loading)
        choice = choose("ptlflow:shift", EstimatorOptions(str(tmp_path / "w.ckpt"), device="cuda:1"))
    assert isinstance(choice, PtlflowChoice) and choice.device == "cuda:1" and touched == ["cpu"]
    model = ptlflow_zoo.make(choice.spec)
    assert model.train_size == (432, 960) and model.extra == {"margin": 2.0}, "what ptlflow itself takes from it"


def test_a_set_of_it_is_made_and_not_continued_with_other_weights(package: None, tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 1)

    def extract(weights: str) -> tuple[int, str]:
        options = f"--dataset folder --root {videos} --out {tmp_path / 'set'} --image-size 128 --flow-size 128 --workers 1 --keep-reverse"
        result = CliRunner().invoke(
            main, ["extract", *options.split(), "--passes", "1", "--flow", "ptlflow:shift", "--weights", weights]
        )
        return result.exit_code, result.output

    assert extract(saved(tmp_path / "one.ckpt", 900.0))[0] == 0
    data = ShardSet(tmp_path / "set")
    assert data.manifest.settings.estimator["name"] == "ptlflow:shift" and data.stored_mask("reverse").all()
    forward, back = data.read(0, 0), data.reverse(0, 0)
    assert np.abs(forward.flow_chw).max() > 0 and np.array_equal(back.values_chw, -forward.flow_chw)
    code, said = extract(saved(tmp_path / "two.ckpt", 901.0))
    assert code == 1 and "estimator.weights: 'sha256:" in said


def test_checkpoints_are_fetched_by_name(package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ptlflow

    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    with serving() as server:
        server.content = Path(saved(tmp_path / "w.ckpt", 0.5)).read_bytes()
        monkeypatch.setitem(ptlflow.shift.pretrained_checkpoints, "plain", f"{server.url}/plain.ckpt")
        said = CliRunner().invoke(main, ["weights", "get", "ptlflow:shift:plain"])
    assert said.exit_code == 0 and "sha256:" in said.output, said.output
    choice = choose("ptlflow:shift", EstimatorOptions("plain"))
    assert str(choice.statement()["weights"]) in said.output
    unknown = CliRunner().invoke(main, ["weights", "get", "ptlflow:shift:plane"])
    assert unknown.exit_code == 1 and "did you mean plain" in unknown.output


def test_the_package_is_not_imported_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptlflow_zoo, "import_module", lambda name: SimpleNamespace())
    forget()
    choose("raft-small", EstimatorOptions("random:0"))
    assert "ptlflow" not in sys.modules
