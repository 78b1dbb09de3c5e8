"""Synthetic videos as files: readable by both decoders, the same bytes for the same seed, the layout of DAVIS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.synth import DEPTH_SCALE, Renderer, Scene, Style, generate, write_davis, write_videos
from pipeline.synth.write import HELD_OUT
from pipeline.video.decord_library import decord

SIZE = (96, 128)


def bytes_under(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    generate(out, 3, 2, 5, frames=7, size=SIZE, fps=12.0)
    return out


def test_both_decoders_read_every_frame(made: Path) -> None:
    for index in range(3):
        path = made / "videos" / f"synth-{index:05d}.mp4"
        scene = Scene.from_record(json.loads(path.with_name(f"{path.stem}.scene.json").read_text()))
        renderer = Renderer(scene)
        reader = decord.VideoReader(str(path))
        by_decord = reader.get_batch(range(len(reader))).asnumpy()
        with av.open(str(path)) as container:
            by_av = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        assert by_decord.shape == by_av.shape == (7, *SIZE, 3)
        assert reader.get_avg_fps() == pytest.approx(12.0)
        for t in range(7):
            assert psnr_db(by_decord[t], renderer.frame(t)) > 27
            assert psnr_db(by_av[t], renderer.frame(t)) > 27
            neighbours = [psnr_db(by_decord[t], renderer.frame(o)) for o in range(7) if o != t]
            assert psnr_db(by_decord[t], renderer.frame(t)) > max(neighbours)  # each frame is where it belongs


def test_davis_layout(made: Path) -> None:
    davis = made / "davis"
    names = (davis / "ImageSets/2017/val.txt").read_text().split()
    assert names == ["synth-000", "synth-001"]
    for name in names:
        frames = sorted((davis / "JPEGImages/480p" / name).glob("*.jpg"))
        assert [f.name for f in frames] == [f"{t:05d}.jpg" for t in range(7)]
        scene = Scene.from_record(json.loads((frames[0].parent / "scene.json").read_text()))
        assert scene.seed == 5 + HELD_OUT
        renderer = Renderer(scene)
        for t, frame in enumerate(frames):
            assert psnr_db(np.asarray(Image.open(frame)), renderer.frame(t)) > 27
            annotation = Image.open(davis / "Annotations/480p" / name / f"{t:05d}.png")
            assert annotation.mode == "P"
            assert (annotation.getpalette() or [])[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
            np.testing.assert_array_equal(np.asarray(annotation), scene.mask(t))
            depth = np.asarray(Image.open(davis / "Depth/480p" / name / f"{t:05d}.png"))
            assert depth.dtype == np.uint16
            assert np.abs(depth / DEPTH_SCALE - scene.depth(t)).max() <= 0.5001 / DEPTH_SCALE


def test_same_seed_same_bytes_and_other_seed_other_bytes(made: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", 3, 2, 5, frames=7, size=SIZE, fps=12.0)
    assert bytes_under(tmp_path / "again") == bytes_under(made)
    write_videos(tmp_path / "alone", 3, 5, frames=7, size=SIZE, fps=12.0, workers=1)
    assert bytes_under(tmp_path / "alone") == bytes_under(made / "videos")
    generate(tmp_path / "other", 3, 2, 6, frames=7, size=SIZE, fps=12.0)
    first, other = bytes_under(made), bytes_under(tmp_path / "other")
    assert first.keys() == other.keys()
    same = {name for name in first if first[name] == other[name]}
    assert same == {"davis/ImageSets/2017/val.txt"}


def test_held_out_sequences_are_not_training_videos() -> None:
    training = {Scene.create(seed, i, size=SIZE).contents for seed in (0, 1, 5) for i in range(6)}
    held_out = {Scene.create(seed + HELD_OUT, i, size=SIZE).contents for seed in (0, 1, 5) for i in range(6)}
    assert len(training) == len(held_out) == 18 and not training & held_out


def test_a_killed_run_is_run_again(made: Path, tmp_path: Path) -> None:
    """After a kill there are leftovers, videos without a record, and half a sequence."""
    out = tmp_path / "out"
    generate(out, 2, 2, 5, frames=7, size=SIZE, fps=12.0)
    (out / "videos/synth-00001.scene.json").unlink()
    (out / "videos/synth-00001.mp4").write_bytes(b"half")
    (out / "davis/JPEGImages/480p/synth-001/scene.json").unlink()
    (out / "davis/Annotations/480p/synth-001/00003.png").unlink()
    kept = out / "videos/synth-00000.mp4"
    before_ns = kept.stat().st_mtime_ns
    generate(out, 3, 2, 5, frames=7, size=SIZE, fps=12.0)  # and one video more
    assert bytes_under(out) == bytes_under(made)
    assert kept.stat().st_mtime_ns == before_ns


def test_no_temporary_files_stay(made: Path) -> None:
    assert not [name for name in bytes_under(made) if ".tmp" in name]


def test_other_settings_into_the_same_folder_are_refused(tmp_path: Path) -> None:
    generate(tmp_path, 1, 0, 5, frames=5, size=SIZE)
    before = bytes_under(tmp_path)
    with pytest.raises(ValueError, match=r"frames was 5, now 6.*seed was 5, now 7"):
        generate(tmp_path, 1, 0, 7, frames=6, size=SIZE)
    with pytest.raises(ValueError, match="style was"):
        generate(tmp_path, 1, 0, 5, frames=5, size=SIZE, style=Style(camouflage=0.0))
    assert bytes_under(tmp_path) == before
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        generate(tmp_path, 1, 0, 5, frames=5, size=SIZE)


def test_progress_names_everything_once(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    generate(
        tmp_path, 2, 1, 1, frames=3, size=SIZE, progress=lambda name, done, total: seen.append((name, done, total))
    )
    assert sorted(name for name, _, _ in seen) == ["synth-000", "synth-00000", "synth-00001"]
    assert [(done, total) for _, done, total in seen] == [(1, 3), (2, 3), (3, 3)]


def test_depth_is_optional_and_bad_arguments_are_named(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", 1, 0, frames=2, size=SIZE, with_depth=False)
    assert not (tmp_path / "davis/Depth").exists()
    with pytest.raises(ValueError, match="even height and width"):
        write_videos(tmp_path / "v", 1, 0, size=(97, 128))
    with pytest.raises(ValueError, match="seed"):
        write_videos(tmp_path / "v", 1, HELD_OUT, size=SIZE)
    with pytest.raises(ValueError, match="fps 0"):
        write_videos(tmp_path / "v", 1, 0, size=SIZE, fps=0)
    with pytest.raises(ValueError, match="at least one"):
        generate(tmp_path / "v", 0, 0, 0)
    with pytest.raises(ValueError, match="frames is 0"):
        generate(tmp_path / "v", 1, 0, 0, frames=0)
    assert not (tmp_path / "v").exists()


def test_a_full_disk_is_an_error_not_a_short_video(tmp_path: Path) -> None:
    """A limit on file size stands for the disk: OpenCV itself would go on silently."""
    script = (
        "import resource, sys; from pathlib import Path; from pipeline.synth import write_videos\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: write_videos(Path(sys.argv[1]), 1, 0, frames=9, size=(240, 320))\n"
        "except OSError as error: print('refused:', error)"
    )
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert "refused:" in ran.stdout and "of 9 frames could be read back" in ran.stdout, ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError):
        write_videos(tmp_path / "out", 1, 0, size=SIZE, frames=2)
