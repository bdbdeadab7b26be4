"""What every data set layout must offer, whoever adds the next one."""

import inspect

import pytest

from pipeline.datasets.table import LAYOUTS, load_reader
from pipeline.errors import UserError
from pipeline.manifest import load_manifest, names

FUNCTIONS = {
    "index": ["root", "manifest", "version"],
    "load_points": ["root", "path"],
    "load_labels": ["root", "frame", "num_points"],
    "load_image": ["root", "camera"],
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_layout_has_the_functions_that_the_stages_call(layout):
    reader = LAYOUTS.load(layout)
    for name, arguments in FUNCTIONS.items():
        assert list(inspect.signature(getattr(reader, name)).parameters) == arguments


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"folder"}))
def test_an_empty_root_is_refused_in_one_line(layout, tmp_path):
    manifest = next(m for m in map(load_manifest, names()) if m.layout == layout)
    version = manifest.versions[0] if manifest.versions else None
    with pytest.raises(UserError) as caught:
        LAYOUTS.load(layout).index(tmp_path, manifest, version)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", names())
def test_every_manifest_names_a_layout(name):
    assert load_reader(name).__name__.startswith("pipeline.datasets.")


def test_an_unknown_layout_lists_the_valid_ones():
    with pytest.raises(UserError, match="did you mean 'waymo'"):
        LAYOUTS.load("waimo")
