import pytest

from eval.tables.published import (
    DATA,
    is_as_published,
    published_for,
    published_robustness,
    read_published,
)
from pipeline.manifest import load_manifest


def test_every_number_has_a_source_and_is_a_percentage():
    rows = read_published()
    assert len(rows) == 625
    assert all(row.source and 0 < row.value < 200 for row in rows)
    assert {row.metric for row in rows} == {"mIoU", "mCE", "mRR"}


@pytest.mark.parametrize(
    ("cell", "seal"),
    [
        (("nuscenes", "linear", "train"), 44.95),
        (("nuscenes", "few_shot", "1pct"), 45.84),
        (("nuscenes", "few_shot", "full"), 75.60),
        (("semantickitti", "few_shot", "1pct"), 46.63),
        (("rellis3d", "few_shot", "10pct"), 55.03),
        (("daps3d", "few_shot", "half"), 81.88),
        (("semanticstf", "few_shot", "full"), 55.36),
    ],
)
def test_the_papers_cells_are_found(cell, seal):
    found = {row.method.split(" (")[0]: row.value for row in published_for(*cell)}
    assert found["Seal"] == seal and "Random" in found


def test_other_cells_have_none():
    for cell in [("synthetic", "linear", "train"), ("nuscenes", "linear", "half"), ("x", "y", "z")]:
        assert published_for(*cell) == []


def test_robustness_rows_are_whole():
    rows = published_robustness()
    assert all(len(row.miou) == 8 for row in rows)
    seal = next(r for r in rows if r.method == "MinkUNet34 (Seal)" and r.protocol == "few_shot")
    assert (seal.mce, seal.mrr, seal.miou["cross_sensor"]) == (92.63, 83.08, 39.85)


@pytest.mark.parametrize("name", DATA)
def test_published_numbers_belong_to_the_first_version_of_a_manifest(name):
    manifest, data = load_manifest(name), DATA[name]
    version = manifest.versions[0] if manifest.versions else None
    assert data.place == (f"{name}-{version}" if version else name)
    if data.num_val is not None:
        assert data.num_val == manifest.expected_counts(version)["val"]
    assert is_as_published(name, data.place, data.num_val or 7, "")
    assert not is_as_published(name, data.place, data.num_val or 7, "other")
    assert not is_as_published(name, f"{data.place}-x", data.num_val or 7, "")
    assert data.num_val is None or not is_as_published(name, data.place, data.num_val - 1, "")
