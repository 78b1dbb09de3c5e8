"""python -m trainer export-onnx: a model in, an ONNX file out (`trainer.onnx_export`)."""

from __future__ import annotations

from pathlib import Path

import click

from common.command import one_line_errors


@click.command("export-onnx")
@click.argument("model_path", metavar="MODEL")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="FILE.onnx to write.")
@click.option("--teacher", is_flag=True, help="Take the EMA decoder of a training checkpoint.")
@one_line_errors(out_of_memory="the check runs the model at its native size: use a machine with more memory")
def onnx_command(model_path: str, out: Path, teacher: bool) -> None:
    """Write MODEL, a file or an official name, as ONNX with any batch, height and width, and compare it with ONNX Runtime."""
    # Here, because they load torch, which --help should not wait for.
    from trainer.flowfeat import FlowFeat
    from trainer.official_models import licence_of_model
    from trainer.onnx_export import TOLERANCE, export_onnx

    if out.suffix != ".onnx":
        raise ValueError(f"--out {out}: name it .onnx")
    model = FlowFeat.from_pretrained(model_path, teacher=teacher).eval()
    licence = licence_of_model(model)
    found = export_onnx(model, out, name=Path(model_path).stem, licence=licence)
    for one in found:
        click.echo(f"images {list(one.size)}: ONNX Runtime within {one.relative:.1e} of the largest value", err=True)
    click.echo(f"{out}: {model.variant}, {out.stat().st_size / 1e6:.1f} MB, licence of the weights: {licence}")
    click.echo(f"checked at {len(found)} sizes, tolerance {TOLERANCE:g}; sides in multiples of {model.size_multiple}")
