"""A golden training: twelve steps of a tiny model end where they ended when this was recorded.

Bits differ between processors, so summaries in float64 are compared. Measured: other instruction sets and thread counts move
them by up to 5e-6 of their value; betas 0.999 -> 0.99, weight decay 0.01, alpha 1 -> 0.999, sigma 0.1 -> 0.101 or a teacher
every 4 instead of 5 steps by 1e-3 and more. A deliberate change of the method records new numbers and says so in LOG.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.runs import final_state, lines, run
from trainer import FlowFeat

STEPS = 12
TOLERANCE = 1e-4
# per decoder tensor: length of the student's way from its initial values, of the teacher's, and of the student itself
ENDED = {
    "scratch.output_conv0.weight": (0.198912761059132, 0.08746210214925851, 2.2861830448187104),
    "scratch.output_conv1.2.weight": (0.09239634884775273, 0.03602180189783314, 2.2891200322088667),
    "act_postprocess1.post.0.weight": (0.2763495098227706, 0.11434627567895848, 4.04715084364631),
    "act_postprocess4.post.1.bias": (0.023164632039187925, 0.01372005531257418, 0.1927396322997699),
    "scratch.refinenet2.resConfUnit1.conv1.weight": (0.19638102726339532, 0.08876235754239001, 2.333090528559961),
    "norm.norm.weight": (0.017086233625381458, 0.00707595906120578, 4.000614133494607),
    "scratch.layer3_rn.weight": (0.35619095854039645, 0.1697759009919536, 2.326150280735348),
}
LOSSES = (
    1.1172711849212646,
    0.7671241164207458,
    0.8116574287414551,
    0.8449151515960693,
    0.8546871542930603,
    0.9534010291099548,
    0.6767152547836304,
    0.8200517892837524,
    0.7090737223625183,
    0.6964973211288452,
    0.5682185888290405,
    0.633827805519104,
)


def test_a_short_training_ends_where_it_always_did(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", f"train.steps={STEPS}", "train.threads=1")
    losses = [line["loss"] for line in lines(tmp_path / "run", "step")]
    assert losses == pytest.approx(LOSSES, rel=TOLERANCE)
    trained = final_state(tmp_path / "run")["model"]
    fresh = FlowFeat.create("tiny_dino8", init="random", seed=0).state_dict()
    for key, wanted in ENDED.items():
        student, teacher, start = (
            state[name].double()
            for state, name in (
                (trained, f"decoder.{key}"),
                (trained, f"decoder_ema.ema_model.{key}"),
                (fresh, f"decoder.{key}"),
            )
        )
        found = tuple(float(way.norm()) for way in (student - start, teacher - start, student))
        assert found == pytest.approx(wanted, rel=TOLERANCE), key
