"""Imports go one way, model libraries stay in their adapters, and the command line starts without them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "data_engine": {"data_engine"},
    "specialists": {"data_engine", "specialists"},
    "filters": {"data_engine", "filters"},
    "pipelines": {"data_engine", "specialists", "filters", "pipelines"},
}
MODEL_LIBRARIES = {
    "torch",
    "torchvision",
    "transformers",
    "ultralytics",
    "open_clip",
    "rapidocr",
    "spacy",
    "onnxruntime",
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module, and whether importing the file imports it (top level, not for type checks)."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, id(node) in top


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_downwards(package):
    for path in (ROOT / package).rglob("*.py"):
        for module, _ in imports(path):
            first = module.split(".")[0]
            assert first not in MAY_IMPORT or first in MAY_IMPORT[package], f"{path.name} imports {module}"


def test_no_file_imports_a_model_library_when_it_is_imported():
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            for module, at_import in imports(path):
                assert not (at_import and module.split(".")[0] in MODEL_LIBRARIES), (
                    f"{path.name} imports {module}"
                )


def test_the_engine_knows_no_model_library_at_all():
    for path in (ROOT / "data_engine").rglob("*.py"):
        for module, _ in imports(path):
            assert module.split(".")[0] not in MODEL_LIBRARIES, f"{path.name} imports {module}"


def test_ultralytics_is_imported_by_the_detector_files_alone():
    found = {
        path.relative_to(ROOT).as_posix()
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        for module, _ in imports(path)
        if module.split(".")[0] == "ultralytics"
    }
    assert found, "the detector must import it somewhere, or this test looks in the wrong place"
    assert all(name.startswith("specialists/detector") for name in found), found


def test_help_loads_neither_torch_nor_ray_nor_arrow():
    code = (
        "import sys; sys.argv = ['fde', '--help']\n"
        "from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'duckdb', 'numpy', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: fde" in done.stdout and done.stderr.strip() == "[]"
