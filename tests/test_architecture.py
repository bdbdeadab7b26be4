"""The import rules of docs/design (section 3): who may import whom, and how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "train", "eval")
LEAVES = {
    "pipeline.types",
    "pipeline.geometry",
    "pipeline.schema",
    "pipeline.config",
    "pipeline.tables",
    "pipeline.errors",
    "pipeline.options",
    "pipeline.progress",
    "pipeline.files",
}
TABLE_FOLDERS = (
    "pipeline/datasets",
    "pipeline/superpixels",
    "train/losses",
    "eval/probes",
    "eval/corruptions",
)
ONLY_IN = {
    "dask": {"pipeline/run.py", "pipeline/cluster.py"},
    "distributed": {"pipeline/run.py", "pipeline/cluster.py"},
    "zarr": {"pipeline/store.py", "pipeline/making.py", "pipeline/blocks.py"},
    "MinkowskiEngine": {"train/engines/minkowski.py"},
    "segment_anything": {"pipeline/superpixels/sam.py"},
}
FROM_PIPELINE = {"train": LEAVES | {"pipeline.store", "pipeline.index", "pipeline.image"}}
FROM_PIPELINE["eval"] = FROM_PIPELINE["train"]
CLOUD_READERS = {"pipeline.formats", "pipeline.npy", "pipeline.pcd", "pipeline.ply"}
MAX_FILE_LINES = 275
MAX_FUNCTION_LINES = 66


def python_files() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, 'from a.b import c' as both a.b and a.b.c."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = python_files()
each_file = pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])


@each_file
def test_packages_only_look_upstream(path):
    package = path.relative_to(ROOT).parts[0]
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    assert not [name for name in imports(path) if name.split(".")[0] in later]


@each_file
def test_train_and_eval_use_only_the_open_rooms_of_stage_one(path):
    package = path.relative_to(ROOT).parts[0]
    if package == "pipeline":
        return
    allowed = FROM_PIPELINE[package]
    if path.name == "predict.py":
        allowed = allowed | CLOUD_READERS
    used = {name for name in imports(path) if name.startswith("pipeline.")}
    modules = {".".join(name.split(".")[:2]) for name in used}
    assert modules <= allowed


@each_file
def test_leaves_import_nothing_of_ours_but_leaves(path):
    if module(path) in LEAVES:
        ours = {n for n in imports(path) if n.split(".")[0] in PACKAGES}
        assert {".".join(n.split(".")[:2]) for n in ours} <= LEAVES


@each_file
def test_siblings_of_a_table_do_not_import_each_other(path):
    folder = path.parent.relative_to(ROOT).as_posix()
    if folder not in TABLE_FOLDERS:
        return
    package = folder.replace("/", ".")
    siblings = {module(p) for p in path.parent.glob("*.py")} - {f"{package}.table"}
    assert not siblings & imports(path)


@each_file
def test_guarded_packages_have_one_importer(path):
    name = path.relative_to(ROOT).as_posix()
    for package, importers in ONLY_IN.items():
        if name not in importers:
            assert not [n for n in imports(path) if n.split(".")[0] == package], package


@each_file
def test_no_room_without_a_name(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "base", "misc"}


@each_file
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    if path.name != "__main__.py":
        assert text.count("\n") <= MAX_FILE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_nothing_of_this_machine_is_named():
    """No absolute path of a developer's machine and no registry host in what is committed."""
    roots = ("/" + "work/", "/" + "root/", "pypi" + ".org", "files.pythonhosted" + ".org")
    for path in [*FILES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile"]:
        text = path.read_text()
        assert not [needle for needle in roots if needle in text], path
