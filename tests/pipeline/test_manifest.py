import dataclasses

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.manifest import FOLDER, find_root, load_manifest, names, resolve_version
from pipeline.splits import (
    assign_frame_splits,
    assign_splits,
    scene_lists,
    split_names,
    thin_frames,
    thin_scenes,
)
from pipeline.taxonomy import Taxonomy


def test_split_lists_have_the_published_sizes():
    lists = load_manifest("nuscenes").scene_lists
    sizes = {name: len(set(scenes)) for name, scenes in lists.items()}
    assert sizes == {
        "train": 700,
        "val": 150,
        "test": 150,
        "mini_train": 8,
        "mini_val": 2,
        "slidr_mini_val": 100,
        "slidr_train": 600,
    }
    assert not set(lists["train"]) & set(lists["val"])
    assert set(lists["slidr_train"]) | set(lists["slidr_mini_val"]) == set(lists["train"])


@pytest.mark.parametrize("name", names())
def test_every_raw_id_maps_to_a_class_or_to_ignored(name):
    manifest = load_manifest(name)
    table = manifest.label_map()
    assert table.shape == (65536,) and table.dtype == np.uint8
    assert set(table[list(manifest.raw_names)]) == {*range(len(manifest.classes)), 255}
    assert np.count_nonzero(table != 255) == sum(t != 255 for t in manifest.raw_to_train.values())


def test_known_ids():
    nuscenes, kitti = load_manifest("nuscenes"), load_manifest("semantickitti")
    assert nuscenes.classes[nuscenes.label_map()[24]] == "driveable_surface"
    assert nuscenes.label_map()[31] == 255  # the ego vehicle
    assert kitti.classes[kitti.label_map()[259]] == "other-vehicle"
    assert nuscenes.cameras[0] == "CAM_FRONT" and nuscenes.cameras[2] == "CAM_BACK_RIGHT"
    assert (nuscenes.pair_gap, kitti.pair_gap, kitti.intensity_offset) == (1, 5, 1.0)


def test_ids_the_map_does_not_list_are_named():
    manifest = load_manifest("semantickitti")
    semantic = np.array([10, 7, 999, 7, 0], np.uint16)
    assert manifest.unknown_ids(semantic).tolist() == [7, 999]
    assert manifest.label_map()[semantic].tolist() == [0, 255, 255, 255, 255]


@pytest.mark.parametrize("name", names())
def test_counts_name_splits_and_unverified_names_fields(name):
    manifest = load_manifest(name)
    for counts in manifest.counts.values():
        assert set(counts) <= set(split_names(manifest))
    assert set(manifest.counts) <= {"any", *manifest.versions}
    known = {field.name for field in dataclasses.fields(manifest)} | {"splits"}
    assert set(manifest.unverified) <= known
    assert len(split_names(manifest)) == len(set(split_names(manifest))) <= 62  # bits of an int64


def test_every_data_set_of_the_paper_is_there():
    published = (
        "nuscenes semantickitti waymo scribblekitti rellis3d semanticposs semanticstf synlidar "
        "daps3d synth4d nuscenes_c"
    )
    assert set(names()) == {*published.split(), "folder", "synthetic"}
    sizes = {name: len(load_manifest(name).classes) for name in published.split()}
    assert list(sizes.values()) == [16, 19, 22, 19, 19, 13, 19, 32, 4, 7, 16]


def test_every_data_set_has_a_section_in_the_docs():
    text = (FOLDER.parent / "docs/datasets.md").read_text()
    found = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    headings = {heading.replace("-", "").casefold() for heading in found}
    other = {
        "folder": "your own folder", "synthetic": "the synthetic city", 
        "nuscenes_c": "nuscenesc",
    }  # fmt: skip
    assert {other.get(name, name) for name in names()} <= headings
    assert all(f"| `{name}` |" in text for name in names())


def test_what_the_fact_sheet_calls_unverified_is_marked():
    marked = {name: set(load_manifest(name).unverified) for name in names()}
    assert {n for n in marked if "license" in marked[n]} == {
        "semantickitti", "scribblekitti", "semanticposs", "synlidar", "daps3d", "synth4d"
    }  # fmt: skip
    assert {"rate_hz", "intensity_max"} <= marked["semantickitti"] & marked["scribblekitti"]
    assert "intensity_offset" in marked["semanticposs"] & marked["synlidar"] & marked["synth4d"]
    assert "split_folders" in marked["waymo"]


def test_versions_may_differ_in_numbers():
    rellis, synth4d = load_manifest("rellis3d"), load_manifest("synth4d")
    found = [(m.num_rings, m.intensity_max) for m in map(rellis.for_version, ("os1", "vel", None))]
    assert found == [(64, 1.0), (32, 255.0), (64, 1.0)]
    assert [synth4d.for_version(v).num_rings for v in synth4d.versions] == [32, 64]
    with pytest.raises(UserError, match=r"by_version: unknown name 'velo'; did you mean 'vel'"):
        dataclasses.replace(rellis, by_version={"velo": {"num_rings": 32}})
    with pytest.raises(UserError, match="by_version.vel: unknown name 'rings'"):
        dataclasses.replace(rellis, by_version={"vel": {"rings": 32}})


def test_alternative_taxonomies():
    # method.md and the fact sheet: two taxonomies, SynLiDAR four merges
    rellis, synth4d = load_manifest("rellis3d"), load_manifest("synth4d")
    official = rellis.taxonomy("official_14")
    assert len(official.classes) == 14 and official.label_map()[[1, 3, 34]].tolist() == [255, 0, 13]
    assert rellis.label_map()[[1, 3, 34]].tolist() == [0, 1, 18]
    assert synth4d.taxonomy("native_22").label_map()[[0, 1, 22]].tolist() == [255, 0, 21]
    synlidar = load_manifest("synlidar")
    kitti = synlidar.taxonomy("semantickitti_19")
    assert kitti.classes == load_manifest("semantickitti").classes
    # pick-up is a truck in one merge and ignored in the other
    assert (
        kitti.label_map()[2] == 3
        and synlidar.taxonomy("semantickitti_19_cosmix").label_map()[2] == 255
    )
    assert synlidar.taxonomy("semanticposs_13").classes == load_manifest("semanticposs").classes
    hashes = {synlidar.taxonomy(name).content_hash() for name in ("", *synlidar.taxonomies)}
    assert len(hashes) == 5
    with pytest.raises(
        UserError, match=r"data set 'rellis3d': taxonomy: unknown name 'official'; di"
    ):
        rellis.taxonomy("official")


def test_a_taxonomy_that_does_not_fit_is_refused():
    plain = Taxonomy(("a", "b"), {"a": (0, 0, 0), "b": (1, 1, 1)}, {0: 255, 1: 0, 2: 1})
    plain.check("x.yaml", {0, 1, 2})
    with pytest.raises(UserError, match=r"x.yaml: colors must name the classes, .*\['b'\]"):
        dataclasses.replace(plain, colors={"a": (0, 0, 0)}).check("x.yaml", {0, 1, 2})
    with pytest.raises(UserError, match=r"raw_to_train must hold 0..1 or 255, got \[2\]"):
        dataclasses.replace(plain, raw_to_train={0: 2}).check("x.yaml", {0})
    with pytest.raises(UserError, match=r"must have the same ids, got \[3\]"):
        plain.check("x.yaml", {0, 1, 2, 3})


def test_variants_are_chosen_without_a_folder(tmp_path):
    manifest = load_manifest("waymo")
    assert resolve_version(manifest, tmp_path) == "top"
    assert resolve_version(manifest, tmp_path, "all-both") == "all-both"
    with pytest.raises(UserError, match="version: unknown name 'bottom'; .*all-both, top"):
        resolve_version(manifest, tmp_path, "bottom")


def test_label_map_hash_tells_maps_apart():
    hashes = [load_manifest(n).label_map_hash() for n in ("nuscenes", "synthetic", "semantickitti")]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(900, 1600, 0.5), (600, 600, 0.5), (599, 2000, 1.0), (376, 1241, 1.0)],
)
def test_store_scale_follows_the_short_side(height, width, scale):
    assert load_manifest("nuscenes").scale_for(height, width) == scale


def test_few_shot_scenes_are_the_kth_training_scenes_in_file_order():
    # Worked by hand: training scenes in file order are d, b, e, a; 'x' does not count.
    scenes, train = ["d", "x", "b", "e", "a"], frozenset("abde")
    assert thin_scenes(scenes, train, 2) == {"b", "a"}  # the 2nd and 4th
    assert thin_scenes(scenes, train, 4) == {"a"}
    assert thin_scenes(scenes, train, 100) == set()
    assert thin_scenes(scenes, train, 1) == train


def test_few_shot_counts_of_nuscenes():
    train = load_manifest("nuscenes").scene_lists["train"]
    kept = [len(thin_scenes(train, frozenset(train), step)) for step in (100, 20, 10, 4, 2, 1)]
    assert kept == [7, 35, 70, 175, 350, 700]


def test_few_shot_frames_start_with_the_first_of_the_sorted_list():
    assert thin_frames(["01/0", "00/1", "00/2", "00/0"], 2) == {"00/0", "00/2"}
    paths = [f"{k:05d}" for k in range(19130)]
    counts = [len(thin_frames(paths, step)) for step in (100, 20, 10, 4)]
    assert counts == [192, 957, 1913, 4783]


def test_splits_of_frames_under_either_rule(tmp_path):
    lists = {"train": frozenset({"a", "b"}), "val": frozenset({"c"})}
    frames = [("b", "p0"), ("b", "p1"), ("a", "p2"), ("c", "p3")]
    arguments = (lists, ["b", "a", "c"], [s for s, _ in frames], [p for _, p in frames])
    by_scene = assign_splits(load_manifest("nuscenes"), *arguments)
    assert by_scene == [("train", "full")] * 2 + [("train", "half", "full"), ("val",)]
    by_frame = assign_splits(load_manifest("semantickitti"), *arguments)
    everything = ("train", "1pct", "5pct", "10pct", "25pct", "half", "full")
    assert by_frame == [everything, ("train", "full"), ("train", "half", "full"), ("val",)]
    with pytest.raises(UserError, match=r"got \['q'\] and 0 more in none of them"):
        assign_splits(load_manifest("nuscenes"), lists, ["q"], ["q"], ["p"])


def test_frame_splits_by_hand():
    # Synth4D's kind: the frames' own splits are given. Without labels nothing counts, except where
    # no frame has any; POSS lists its own half, so that one is not thinned.
    own = [("train",)] * 5 + [("val",)] * 2
    paths = ["e", "d", "c", "b", "a", "v", "w"]
    labeled = [True, True, True, True, False, True, False]
    found = assign_frame_splits(load_manifest("synth4d"), own, paths, labeled)
    # the labeled training paths, sorted: b c d e; half keeps b and d
    assert [p for p, names in zip(paths, found, strict=True) if "half" in names] == ["d", "b"]
    assert [p for p, names in zip(paths, found, strict=True) if "full" in names] == [*"edcb"]
    assert found[4:] == [("train",), ("val",), ()]
    none = assign_frame_splits(load_manifest("synth4d"), own, paths, [False] * 7)
    assert "1pct" in none[4] and none[6] == ("val",)
    poss = assign_frame_splits(load_manifest("semanticposs"), own, paths)
    assert not any("half" in names for names in poss) and "full" in poss[0]


def test_synthetic_splits_come_from_the_data(tmp_path):
    manifest = load_manifest("synthetic")
    with pytest.raises(UserError, match="must list the scenes of each split, not found"):
        scene_lists(manifest, tmp_path, "v")
    (tmp_path / "v").mkdir()
    (tmp_path / "v/splits.json").write_text('{"train": ["a"], "val": ["b"]}')
    assert scene_lists(manifest, tmp_path, "v") == {"train": {"a"}, "val": {"b"}}
    assert split_names(manifest)[:3] == ("train", "val", "1pct")
    (tmp_path / "v/splits.json").write_text('{"train": ["a"]')
    with pytest.raises(UserError, match=r"splits.json: must be .* got JSONDecodeError"):
        scene_lists(manifest, tmp_path, "v")


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'nuscenes'\? choose one of: .*synthetic"):
        load_manifest("nuscene")


def test_root_comes_from_flag_then_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("NUSCENES_ROOT", raising=False)
    with pytest.raises(UserError, match=r"pass --root FOLDER or set NUSCENES_ROOT"):
        find_root("nuscenes", None)
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("NUSCENES_ROOT", "$SOMEWHERE/a")
    assert find_root("nuscenes", None) == tmp_path / "a"
    assert find_root("nuscenes", f"{tmp_path}/b") == tmp_path / "b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_root("nuscenes", "~/b") == tmp_path / "b"
    monkeypatch.setenv("NUSCENES_ROOT", "/does/not/exist")
    with pytest.raises(UserError, match="NUSCENES_ROOT must be a folder, got '/does/not/exist'"):
        find_root("nuscenes", None)


def test_version_prefers_the_full_set(tmp_path):
    manifest = load_manifest("nuscenes")
    with pytest.raises(UserError, match=r"must hold the folder v1.0-trainval or v1.0-mini"):
        resolve_version(manifest, tmp_path)
    for version in ("v1.0-test", "v1.0-mini", "v1.0-trainval"):
        (tmp_path / version).mkdir()
        assert resolve_version(manifest, tmp_path) == version
    assert resolve_version(manifest, tmp_path, "v1.0-mini") == "v1.0-mini"
    with pytest.raises(UserError, match=r"must hold the folder v1.0-typo"):
        resolve_version(manifest, tmp_path, "v1.0-typo")
    assert resolve_version(load_manifest("semantickitti"), tmp_path) is None
    with pytest.raises(UserError, match="has no versions, got 'x'"):
        resolve_version(load_manifest("semantickitti"), tmp_path, "x")
