"""Import boundaries: shards is the only code that the stages share, and no stage reaches into another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "pipeline", "shards", "trainer", "probes")
ALLOWED = {
    "shards": {"shards"},
    "common": {"common", "shards"},
    "pipeline": {"pipeline", "common", "shards"},
    "trainer": {"trainer", "common", "shards"},
    "probes": {"probes", "trainer", "common", "shards"},
}


def imported(path: Path) -> set[tuple[str, str]]:
    """(top-level package, full name) of every absolute import in a file, wherever it stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add((node.module.split(".")[0], node.module))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stay_inside_the_boundaries(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for top, name in imported(path)
        if top in PACKAGES and top not in ALLOWED[package]
    ]
    assert wrong == []


def test_probes_use_only_what_trainer_exports() -> None:
    wrong = [
        p.name
        for p in (ROOT / "probes").rglob("*.py")
        for top, name in imported(p)
        if top == "trainer" and name != "trainer"
    ]
    assert wrong == []


def test_shards_needs_no_torch() -> None:
    """In a fresh interpreter: importing every module of shards must not pull torch in."""
    modules = ", ".join(f"shards.{p.stem}" for p in (ROOT / "shards").glob("*.py") if p.stem != "__init__")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_pickle_and_no_eval_in_the_contract() -> None:
    """A shard set from a stranger must be safe to open."""
    for path in (ROOT / "shards").glob("*.py"):
        tree = ast.parse(path.read_text())
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec", "compile"}, path
        assert not {top for top, _ in imported(path)} & {"pickle", "marshal", "subprocess"}, path
