"""The plan of the house: which room may import which, no circles, no room too large, nothing without a name of its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.module_graph import PACKAGES, ROOT, circles, imported_names, module_graph, source_files

ALLOWED = {
    "shards": {"shards"},
    "common": {"common", "shards"},
    "pipeline": {"pipeline", "common", "shards"},
    "trainer": {"trainer", "common", "shards"},
    "probes": {"probes", "trainer", "common", "shards"},
}
"""Package → packages it may import. Stages 1 and 2 meet in shards alone; what they share besides knows neither."""

WINGS = ("window", "video", "synth", "flow", "extract", "inspect", "cli", "__main__")
"""Inside pipeline an arrow goes only from right to left."""

MOST_LINES = 300
NAMELESS = re.compile(r"(^|_)(utils?|helpers?|misc|manager)(_|$)")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stay_inside_the_boundaries(package: str) -> None:
    files = source_files(package)
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imported_names(path))
        if name.split(".")[0] in PACKAGES and name.split(".")[0] not in ALLOWED[package]
    ]
    assert wrong == []


def test_no_module_imports_itself_round_about() -> None:
    assert circles(module_graph()) == []


def test_a_circle_would_be_found(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from pipeline import b\n")
    (package / "b.py").write_text("def late():\n    from . import c\n")
    (package / "c.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x\n")
    graph = module_graph(tmp_path, ("pipeline",))
    assert circles(graph) == [["pipeline.a", "pipeline.b", "pipeline.c"]]


def test_arrows_inside_pipeline_go_one_way() -> None:
    wrong = []
    for name, targets in module_graph().items():
        for target in targets:
            if name.startswith("pipeline.") and target.startswith("pipeline."):
                here, there = (WINGS.index(module.split(".")[1]) for module in (name, target))
                if there > here:
                    wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_probes_use_only_what_trainer_exports() -> None:
    tree = ast.parse((ROOT / "trainer" / "__init__.py").read_text())
    exported: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            exported = set(ast.literal_eval(node.value))
    assert exported
    allowed = {"trainer"} | {f"trainer.{name}" for name in exported}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in source_files("probes")
        for name in sorted(imported_names(path))
        if name.split(".")[0] == "trainer" and name not in allowed
    ]
    assert wrong == []


def test_no_file_is_too_large_to_know_ones_way_in() -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in source_files(*PACKAGES, "tests", "bench")}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MOST_LINES} == {}


def test_every_file_is_named_after_what_it_holds() -> None:
    names = [p.relative_to(ROOT) for p in source_files(*PACKAGES, "tests", "bench")]
    assert [str(p) for p in names if any(NAMELESS.search(part.removesuffix(".py")) for part in p.parts)] == []


def test_every_module_says_what_it_is() -> None:
    undocumented = [
        str(path.relative_to(ROOT))
        for path in source_files(*PACKAGES, "bench")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert undocumented == []


def test_shards_needs_no_torch() -> None:
    """In a fresh interpreter: importing every module of shards must not pull torch in."""
    modules = ", ".join(f"shards.{p.stem}" for p in (ROOT / "shards").glob("*.py") if p.stem != "__init__")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_pickle_and_no_eval_in_the_contract() -> None:
    """A shard set from a stranger must be safe to open."""
    for path in source_files("shards"):
        tree = ast.parse(path.read_text())
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec", "compile"}, path
        assert not {name.split(".")[0] for name in imported_names(path)} & {"pickle", "marshal", "subprocess"}, path
