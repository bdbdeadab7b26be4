"""The edits for CUDA: on small made-up sources, and on the real source where it can be had."""

import os
import subprocess
import sys

import pytest

from tests.environment.scripts import FOLDER, load

edits = load("minkowski_edits")
Edit = edits.Edit


def source(folder):
    """Write a source in which every edit finds its place as often as it must, and nothing else."""
    pieces = {}
    for edit in edits.EDITS:
        pieces.setdefault(edit.path, []).extend([edit.old] * edit.count)
    for path, parts in pieces.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("// first\n" + "// between\n".join(parts) + "// last\n")
    return folder


def contents(folder):
    return {p: p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_every_place_is_edited_and_the_rest_stays(tmp_path):
    folder = source(tmp_path)
    before = contents(folder)
    assert edits.apply(folder) == [edit.name for edit in edits.EDITS]
    after = contents(folder)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)
    assert all(text.startswith("// first\n") and "// last\n" in text for text in after.values())
    text = (folder / edits.MAP).read_text()
    assert text.count("cudaMemPrefetchAsync(") == 2  # both inside the wrapper
    assert "CUDART_VERSION >= 13000" in text and "nvtx" not in text
    assert "uninstall" not in (folder / "setup.py").read_text()


@pytest.mark.parametrize("number", range(len(edits.EDITS)))
def test_an_edit_that_does_not_find_its_place_is_named_and_nothing_is_written(tmp_path, number):
    folder, edit = source(tmp_path), edits.EDITS[number]
    path = folder / edit.path
    path.write_text(path.read_text().replace(edit.old, "", 1))
    before = contents(folder)
    with pytest.raises(ValueError) as caught:
        edits.apply(folder)
    assert str(caught.value).startswith(
        f"{edit.path}: edit '{edit.name}' must find its place {edit.count} time(s), "
        f"got {edit.count - 1}; "
    )
    assert contents(folder) == before


def test_a_place_that_occurs_too_often_is_refused(tmp_path):
    (tmp_path / "a").write_text("x x x")
    with pytest.raises(ValueError, match="edit 'one' must find its place 1 time.s., got 3"):
        edits.apply(tmp_path, (Edit("one", "a", "x", "y"),))
    assert edits.apply(tmp_path, (Edit("three", "a", "x", "y", 3),)) == ["three"]
    assert (tmp_path / "a").read_text() == "y y y"


def test_edits_of_one_file_follow_each_other(tmp_path):
    (tmp_path / "a").write_text("1")
    edits.apply(tmp_path, (Edit("up", "a", "1", "2"), Edit("on", "a", "2", "3")))
    assert (tmp_path / "a").read_text() == "3"


def test_the_command_says_one_line(tmp_path):
    script = [sys.executable, str(FOLDER / "minkowski_edits.py")]
    done = subprocess.run([*script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("environment: src/convolution_kernel.cuh: edit 'thrust headers of ")
    done = subprocess.run([*script, str(source(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"[env] {len(edits.EDITS)} edits")
    done = subprocess.run([*script, str(tmp_path)], capture_output=True, text=True)  # a second time
    assert done.returncode == 1 and "not edited before" in done.stderr


@pytest.fixture(scope="session")
def real_source(tmp_path_factory):
    """MinkowskiEngine's source as the package registry has it."""
    folder = tmp_path_factory.mktemp("sdist")
    done = subprocess.run(
        ["bash", str(FOLDER / "minkowski_source.sh"), sys.executable, str(folder / "source")],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    if done.returncode != 0:
        pytest.skip(f"the source of MinkowskiEngine cannot be had: {done.stderr.strip()[-200:]}")
    return folder / "source"


@pytest.mark.slow
def test_the_real_source_is_edited_once(real_source, tmp_path):
    before = contents(real_source)
    assert edits.apply(real_source) == [edit.name for edit in edits.EDITS]
    changed = {p.relative_to(real_source).as_posix() for p in before if p.read_text() != before[p]}
    assert changed == {edit.path for edit in edits.EDITS}
    text = "".join(p.read_text() for p in real_source.rglob("*.cu*"))
    assert "thrust::unary_function" not in text and "std::shared_ptr<map_type>" not in text
    with pytest.raises(ValueError, match="not edited before"):
        edits.apply(real_source)
