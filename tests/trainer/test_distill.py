"""The method against recorded arrays of the reference implementation, and what the recordings do not cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.codec import decode_flow, encode_flow
from tests.trainer.model_fixtures import meta_of, parity_weights, tensors
from trainer.config import load_config
from trainer.config_sections import LossConfig
from trainer.distill import fit_linear_map, flow_loss, gradient_loss, predict_flow
from trainer.learner import Learner
from trainer.update import FlowDistillation, distill
from trainer.views import Boxes, Pixels, Views, crop_theta, cut_views, sample_view, standardise_flow

CASES = ("small", "wide", "rect")
ALPHAS = ("1", "0.1", "0.001")


class Case(NamedTuple):
    image: Tensor
    flow: Tensor
    teacher: Tensor
    student: Tensor
    theta1: Tensor
    theta2: Tensor
    size: tuple[int, int]
    stride: int


@pytest.fixture(scope="module")
def recorded() -> Any:
    return np.load(Path(__file__).resolve().parents[1] / "data" / "parity_train_step.npz")


def theta_of(boxes: list[list[float]], source_hw: tuple[int, int]) -> Tensor:
    top, left, scale = torch.tensor(boxes, dtype=torch.float64).T
    return crop_theta(scale, top, left, source_hw)


def case_of(recorded: Any, name: str) -> Case:
    meta = meta_of(recorded)
    case, seed = meta[name], meta["seed"] + meta[name]["offset"]
    b, d, source, size = case["b"], case["d"], tuple(case["frame_hw"]), tuple(case["input_hw"])
    teacher = torch.from_numpy(parity_weights.normals(seed + 3, b, d, *size))
    return Case(
        torch.from_numpy(parity_weights.image(seed + 1, b, *source)),
        torch.from_numpy(parity_weights.smooth_flow(seed + 2, b, *size)),
        teacher,
        teacher + 0.3 * torch.from_numpy(parity_weights.normals(seed + 4, b, d, *size)),
        theta_of(case["boxes1"], source),
        theta_of(case["boxes2"], source),
        size,
        case["subsample"],
    )


def check(recorded: Any, key: str, value: Tensor) -> None:
    meta = meta_of(recorded)
    np.testing.assert_allclose(value.detach().numpy(), recorded[key], atol=meta["atol"], rtol=meta["rtol"], err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_views_match_the_reference(recorded: Any, name: str) -> None:
    case = case_of(recorded, name)
    s = case.stride
    np.testing.assert_allclose(case.theta1.numpy(), recorded[f"{name}/theta1"], atol=1e-7)
    np.testing.assert_allclose(case.theta2.numpy(), recorded[f"{name}/theta2"], atol=1e-7)
    standard = standardise_flow(case.flow, pixels=False)
    check(recorded, f"{name}/flow_norm", standard[..., ::s, ::s])
    for number, theta in ((1, case.theta1), (2, case.theta2)):
        check(recorded, f"{name}/crop{number}", sample_view(case.image, theta, case.size)[..., ::s, ::s])
        check(recorded, f"{name}/u{number}", sample_view(standard, theta, case.size)[..., ::s, ::s])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", CASES)
def test_map_losses_and_gradients_match_the_reference(recorded: Any, name: str, alpha: str) -> None:
    case = case_of(recorded, name)
    standard = standardise_flow(case.flow, pixels=False)
    u1, u2 = (sample_view(standard, theta, case.size) for theta in (case.theta1, case.theta2))
    student = case.student.clone().requires_grad_()
    got = distill(case.teacher, student, u1, u2, LossConfig(alpha=float(alpha)))
    terms = (got.flow, got.grad, got.total)
    gradients = [torch.autograd.grad(term, student, retain_graph=True)[0] for term in terms]
    where = f"{name}/alpha{alpha}"
    check(recorded, f"{where}/A", got.map_bD2)
    check(recorded, f"{where}/losses_l1_grad_total", torch.stack(terms))
    check(recorded, f"{where}/pred_flow", got.predicted_b2hw[..., ::2, ::2])
    check(recorded, f"{where}/gradnorm_l1_grad_total", torch.stack([g.norm() for g in gradients]))
    np.testing.assert_allclose(
        gradients[2][:, ::4, ::5, ::5].numpy(), recorded[f"{where}/grad_total_sub"], atol=1e-7, rtol=1e-3
    )
    if alpha == "1":
        for recorded_name, kind in (("l2", "l2"), ("l1smooth", "smooth_l1"), ("l1huber", "huber")):
            check(recorded, f"{where}/alt_flowloss_{recorded_name}", flow_loss(got.predicted_b2hw, u2, kind))  # type: ignore[arg-type]


def test_constant_flow_costs_nothing_where_the_official_loss_is_nan(recorded: Any) -> None:
    official = recorded["constant_flow_losses_official"]
    assert np.isnan(official[1]) and not np.isnan(official[0])
    flow = standardise_flow(torch.full((2, 2, 16, 16), 3.7))
    features = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    got = distill(features.detach(), features, flow, flow, LossConfig())
    got.total.backward()
    assert float(got.grad.detach()) == 0.0 and float(got.flow.detach()) < 0.02  # rounding of the mean / 1e-5
    assert features.grad is not None and torch.isfinite(features.grad).all()


def test_map_equals_ridge_by_the_book() -> None:
    """A float64 solve with the column of ones written out."""
    draw = torch.Generator().manual_seed(1)
    x, u = torch.randn(3, 5, 9, 7, generator=draw) + 0.5, torch.randn(3, 2, 9, 7, generator=draw)
    design = torch.cat((x.flatten(2), torch.ones(3, 1, 63)), dim=1).transpose(1, 2).double()
    normal = design.transpose(1, 2) @ design / 63 + 0.3 * torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.solve(normal, design.transpose(1, 2) @ u.flatten(2).transpose(1, 2).double() / 63)
    fitted = fit_linear_map(x, u, 0.3)
    torch.testing.assert_close(fitted.double(), expected, atol=1e-6, rtol=1e-5)
    predicted = (design @ fitted.double()).transpose(1, 2).reshape(3, 2, 9, 7)
    torch.testing.assert_close(predict_flow(x, fitted).double(), predicted, atol=1e-6, rtol=1e-5)


def test_method_stays_in_float32_under_autocast() -> None:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(2, 32, 16, 16, generator=draw)
    u = torch.randn(2, 2, 16, 16, generator=draw)
    plain = distill(x, x, u, u, LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        under = distill(x, x, u, u, LossConfig())
    assert under.map_bD2.dtype == under.predicted_b2hw.dtype == torch.float32
    torch.testing.assert_close(under.map_bD2, plain.map_bD2, atol=0, rtol=0)
    torch.testing.assert_close(under.total, plain.total, atol=0, rtol=0)


def test_gradient_loss_compares_magnitudes_where_the_target_has_edges() -> None:
    target = torch.zeros(1, 2, 4, 6)
    target[..., 3:] = 1.0
    assert float(gradient_loss(target, target, 0.1)) == 0
    assert float(gradient_loss(-target, target, 0.1)) == 0  # magnitudes only
    flat_elsewhere = target + torch.linspace(0, 1, 4).view(1, 1, 4, 1)  # vertical ramp: no target edge there
    assert float(gradient_loss(flat_elsewhere, target, 0.1)) == pytest.approx(0, abs=1e-6)
    assert float(gradient_loss(torch.zeros_like(target), target, 0.1)) == pytest.approx(1.0)


def test_flow_from_pixels_is_the_same_as_from_image_units() -> None:
    flow_px = torch.from_numpy(parity_weights.smooth_flow(5, 2, 24, 40, amp=3.0))
    units = flow_px * torch.tensor([2 / 40, 2 / 24]).view(1, 2, 1, 1)
    torch.testing.assert_close(standardise_flow(flow_px), standardise_flow(units, pixels=False))


def quantised(flow_px: Tensor) -> tuple[Tensor, Tensor]:
    decoded = [decode_flow(encode_flow(f.numpy()), f.shape[-2:]) for f in flow_px]
    values = torch.from_numpy(np.stack([d.values_chw for d in decoded]))
    return values, torch.tensor([d.quantum_px for d in decoded])


@pytest.mark.parametrize("name", ["small", "wide"])
def test_step_holds_when_flow_went_through_a_shard(recorded: Any, name: str) -> None:
    """Stored flow f' = f + e with |e| <= q/2 and q <= s/8, s the smaller channel deviation. Standardised, the map z(f')
    differs from z(f) by e/s, at most q / 2s = 1/16 per pixel, plus the effect of e on mean and deviation of the same
    order; its mean square is q^2 / 12 s^2, i.e. 1/28 = 3.6 % rms at worst. L1 sums two channels: 2 * 1/16 * 2 bounds it."""
    case, meta = case_of(recorded, name), meta_of(recorded)
    height, width = case.size
    pixels = case.flow * torch.tensor([width / 2, height / 2]).view(1, 2, 1, 1)
    values, quantum = quantised(pixels)
    boxes1, boxes2 = (np.array(meta[name][key]) for key in ("boxes1", "boxes2"))
    stacked = np.stack([boxes1, boxes2], axis=1)
    boxes = Boxes(stacked[..., 2], stacked[..., 0].astype(np.int64), stacked[..., 1].astype(np.int64))
    frame = torch.zeros(len(values), *meta[name]["frame_hw"], 3, dtype=torch.uint8)
    views = cut_views(Pixels(frame, values, quantum), boxes, view_size=height, source_size=frame.shape[1])
    assert views.u1 is not None and views.u2 is not None
    exact = standardise_flow(case.flow, pixels=False)
    for u, theta in ((views.u1, case.theta1), (views.u2, case.theta2)):
        error = u - sample_view(exact, theta, case.size)
        assert 0 < float(error.abs().max()) <= 1 / 8
        assert float(error.square().mean().sqrt()) <= 1 / 28
    got = distill(case.teacher, case.student, views.u1, views.u2, LossConfig())
    wanted = recorded[f"{name}/alpha1/losses_l1_grad_total"]
    np.testing.assert_allclose([float(got.flow), float(got.grad), float(got.total)], wanted, rtol=0.03)


def test_cut_views_matches_the_pieces_it_is_made_of(recorded: Any) -> None:
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 255, (2, 40, 40, 3), np.uint8))
    flow = torch.from_numpy(draw.integers(-900, 900, (2, 2, 20, 20)).astype(np.int16))
    boxes = Boxes(np.array([[0.5, 0.6], [0.7, 0.75]]), np.array([[0, 3], [5, 9]]), np.array([[20, 1], [2, 0]]))
    views = cut_views(Pixels(images, flow, torch.tensor([0.25, 0.5])), boxes, view_size=16, source_size=40)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    pixels = flow.float() * torch.tensor([0.25, 0.5]).view(2, 1, 1, 1)
    for view, image, u in ((0, views.image1, views.u1), (1, views.image2, views.u2)):
        scale, top, left = (torch.from_numpy(v[:, view]) for v in boxes)
        theta = crop_theta(scale, top, left, (40, 40))
        torch.testing.assert_close(image, sample_view(normal, theta, (16, 16)), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(u, sample_view(standardise_flow(pixels), theta, (16, 16)))


def test_whole_step_through_encoder_and_decoder_matches_the_reference(recorded: Any) -> None:
    """Losses, gradients and AdamW steps of one update of a DINO-S16 FlowFeat at 224 pixels, teacher and student apart."""
    meta = meta_of(recorded)
    e2e = meta["e2e"]
    config = load_config(None, ["encoder.variant=dino_vits16", "encoder.init=random", "train.batch_size=1"])
    learner = Learner(config, torch.device("cpu"))
    shapes = {key: tuple(value.shape) for key, value in learner.model.state_dict().items()}
    learner.model.load_state_dict(tensors(parity_weights.make_state_dict(shapes, e2e["weight_seed"])))
    decoder = {key.removeprefix("decoder."): s for key, s in shapes.items() if key.startswith("decoder.")}
    assert isinstance(learner.objective, FlowDistillation)
    learner.objective.teacher.decoder.load_state_dict(
        tensors(parity_weights.make_state_dict(decoder, e2e["teacher_seed"]))
    )
    n, source = e2e["n"], e2e["F"]
    flow = standardise_flow(torch.from_numpy(parity_weights.smooth_flow(e2e["S"] + 2, 1, n, n)), pixels=False)
    image = torch.from_numpy(parity_weights.image(e2e["S"] + 3, 1, source, source))
    thetas = [theta_of([e2e[box]], (source, source)) for box in ("box1", "box2")]
    views = Views(*(sample_view(x, theta, (n, n)) for x in (image, flow) for theta in thetas))
    student = dict(learner.model.decoder.named_parameters())
    before = {name: p.detach().clone() for name, p in student.items()}

    update = learner.learn(views)

    losses = [update.numbers()[part] for part in ("flow", "grad", "total")]
    np.testing.assert_allclose(losses, recorded["e2e/losses_l1_grad_total"], atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(
        update.shown["predicted"][..., ::7, ::7], recorded["e2e/pred_flow"], atol=1e-4, rtol=1e-3
    )
    np.testing.assert_allclose(update.shown["student"][:, ::16, ::14, ::14], recorded["e2e/student_feat"], atol=1e-4)
    assert sorted(k for k, p in student.items() if p.grad is None) == sorted(e2e["params_without_grad"])
    norms = [float(student[name].grad.norm()) for name in e2e["params_with_grad"]]  # type: ignore[union-attr]
    np.testing.assert_allclose(norms, recorded["e2e/grad_norms"], rtol=e2e["grad_rtol"])
    deltas = [float((student[name].detach() - before[name]).norm()) for name in e2e["params_with_grad"]]
    np.testing.assert_allclose(deltas, recorded["e2e/step_delta_norms"], rtol=e2e["step_rtol"])
    assert update.numbers()["gradient_norm"] == pytest.approx(float(np.linalg.norm(norms)), rel=1e-4)
