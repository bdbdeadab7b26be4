"""SEEM, X-Decoder and OpenSeeD as sources of stage one, with small random checkpoints."""

import shutil

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.doctor import report
from pipeline.errors import UserError
from pipeline.store import open_store
from pipeline.superpixels.table import SOURCES
from pipeline.types import Camera
from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER
from tests.pipeline.xdecoder.tiny import random_image, tiny_checkpoint

FAMILIES = {"seem": SEEM, "xdecoder": XDECODER, "openseed": OPENSEED}
QUERIES = {"seem": 12, "xdecoder": 12, "openseed": 300}  # OpenSeeD's number is not in its weights
LOW = ("object_threshold=0.2", "overlap_threshold=0.3")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of our own, so that nothing of the user's is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in FAMILIES:
            patch.delenv(f"{name.upper()}_CHECKPOINT", raising=False)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "seem.safetensors", SEEM)


def run(root, stores, source, *more):
    arguments = ["run", "--root", root, "--stores", stores, "--stage", "superpixels",
                 "--source", source, *more]  # fmt: skip
    main([str(each) for each in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def stores(city, checkpoint, tmp_path_factory):
    """Stores with SEEM superpixels; tests that change them copy them first."""
    folder = tmp_path_factory.mktemp("stores")
    settings = (part for assignment in LOW for part in ("--set", assignment))
    run(city, folder, "seem", "--set", f"checkpoint={checkpoint}", *settings)
    return folder


@pytest.mark.parametrize("content", [b"\x80\x02junk", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_leaves_no_store(city, tmp_path, content):
    """Its hash would otherwise stand in the store and refuse the right file."""
    (tmp_path / "wrong.pt").write_bytes(content)
    with pytest.raises(UserError, match="wrong.pt: checkpoint must be a file of tensors"):
        run(city, tmp_path / "stores", "seem", "--set", f"checkpoint={tmp_path / 'wrong.pt'}")
    assert not list((tmp_path / "stores").rglob("superpixels*"))


def test_a_checkpoint_of_another_model_leaves_no_store(city, checkpoint, tmp_path):
    with pytest.raises(UserError, match="give a checkpoint of openseed"):
        run(city, tmp_path / "stores", "openseed", "--set", f"checkpoint={checkpoint}")
    assert not list((tmp_path / "stores").rglob("superpixels*"))


def only_store(folder):
    return open_store(next(folder.glob("*/superpixels-seem.zarr")))


def test_ids_and_categories_are_stored(stores):
    store = only_store(stores)
    ids, category = store.read("ids_native", 0), store.read("category", 0)
    num_segments = store.read("num_segments", 0)
    assert category.shape == (len(ids), SOURCES.load("seem").MAX_CATEGORIES + 1)
    assert (num_segments > 0).any()
    for camera in range(len(ids)):
        known = (category[camera] >= 0).nonzero()[0]
        assert known.tolist() == list(range(1, num_segments[camera] + 1))
        assert ids[camera].max() == num_segments[camera]
    assert category.max() < 133


def test_the_store_knows_the_checkpoint_by_content(stores, checkpoint, city, tmp_path, capsys):
    config = only_store(stores).header.config
    assert len(config["checkpoint_sha256"]) == 64
    assert config["object_threshold"] == 0.2 and "checkpoint" not in config
    copy, moved = shutil.copytree(stores, tmp_path / "copy"), tmp_path / "moved.safetensors"
    shutil.copy(checkpoint, moved)
    settings = [part for assignment in LOW for part in ("--set", assignment)]
    run(city, copy, "seem", "--set", f"checkpoint={moved}", *settings)
    assert "1 blocks done, 0 to do" in capsys.readouterr().err
    other = tiny_checkpoint(tmp_path / "other.safetensors", SEEM, seed=1)
    with pytest.raises(UserError, match="made with other settings .*checkpoint_sha256"):
        run(city, copy, "seem", "--set", f"checkpoint={other}", *settings)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_source_loads_and_segments(name, tmp_path, monkeypatch):
    source = SOURCES.load(name)
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", FAMILIES[name], 0, QUERIES[name])
    monkeypatch.setenv(f"{name.upper()}_CHECKPOINT", str(path))
    config = source.Config(object_threshold=0.2, overlap_threshold=0.2)
    loaded = source.load(config, "cpu")
    rows = 133 if name == "openseed" else 134
    assert loaded.classes.shape == (rows, 24)
    image = random_image(128, 192)[0].permute(1, 2, 0).byte().numpy()
    camera = Camera("CAM", "token", "a.jpg", 128, 192, np.eye(3), np.eye(4), 0)
    found = loaded.segment(image, camera)
    assert found.ids.shape == (128, 192) and found.num_segments > 0


def test_more_queries_than_the_store_has_room_for(tmp_path):
    source = SOURCES.load("seem")
    path = tiny_checkpoint(tmp_path / "wide.safetensors", SEEM, num_queries=301)
    with pytest.raises(UserError, match="must have at most 300 queries, got 301"):
        source.load(source.Config(checkpoint=str(path)), "cpu")


def test_dry_run_makes_nothing(city, checkpoint, tmp_path, capsys):
    run(city, tmp_path / "stores", "seem", "--set", f"checkpoint={checkpoint}", "--dry-run")
    assert "superpixels-seem.zarr: not there yet, 8 frames to do" in capsys.readouterr().err
    assert not list((tmp_path / "stores").glob("*/superpixels*"))


def test_without_a_checkpoint_no_store_of_any_stage_is_made(city, tmp_path):
    arguments = ("run", "--root", city, "--stores", tmp_path / "stores", "--source", "openseed")
    with pytest.raises(UserError, match="openseed: checkpoint must be on this machine"):
        main([str(each) for each in arguments], standalone_mode=False)
    assert not list((tmp_path / "stores").glob("*/*.zarr"))


def test_doctor_says_what_is_missing(checkpoint, monkeypatch):
    monkeypatch.setattr("pipeline.doctor._engines", lambda: ([], True))
    monkeypatch.setenv("SEEM_CHECKPOINT", str(checkpoint))
    lines = "\n".join(report()[0])
    assert "superpixels  seem: usable" in lines
    assert "superpixels  xdecoder: xdecoder: checkpoint must be on this machine" in lines
    assert "superpixels  openseed: openseed: checkpoint must be on this machine" in lines


@pytest.mark.slow
def test_all_of_stage_one_as_a_user_types_it(city, checkpoint, command, tmp_path):
    stores = tmp_path / "stores"
    outcome = command(
        "pipeline", "run", "--dataset", "synthetic", "--root", city, "--stores", stores,
        "--source", "seem",
        env={"SEEM_CHECKPOINT": str(checkpoint), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    missing = command("pipeline", "run", "--root", city, "--stores", stores, "--source", "xdecoder")
    assert missing.code == 2
    assert "xdecoder: checkpoint must be on this machine" in missing.error()
    names = sorted(path.name for path in stores.glob("*/*.zarr"))
    assert names == [
        "frames.zarr", "projections.zarr", "segments.zarr", "superpixels-seem.zarr"
    ]  # fmt: skip
