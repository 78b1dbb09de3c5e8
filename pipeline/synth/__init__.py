"""Synthetic videos with exact flow, masks and depth: `Scene` is the geometry, `Renderer` draws it, `generate` writes files."""

from pipeline.synth.compose import CLASSES, Style
from pipeline.synth.render import Renderer
from pipeline.synth.scene import GENERATOR_VERSION, Grid, Scene, square_grid
from pipeline.synth.stills import write_stills
from pipeline.synth.tracks import exact_tracks
from pipeline.synth.write import DEPTH_SCALE, generate, write_davis, write_videos

__all__ = [
    "CLASSES",
    "DEPTH_SCALE",
    "GENERATOR_VERSION",
    "Grid",
    "Renderer",
    "Scene",
    "Style",
    "exact_tracks",
    "generate",
    "square_grid",
    "write_davis",
    "write_stills",
    "write_videos",
]
