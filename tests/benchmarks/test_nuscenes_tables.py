"""The made-up release: our reader indexes it, and its tokens lead on as the real ones do."""

import json

from benchmarks.nuscenes_tables import VERSION, write_release
from pipeline.index import build_index


def test_a_small_release_is_whole(tmp_path):
    write_release(tmp_path, 12, num_boxes=2)
    index = build_index("nuscenes", tmp_path, VERSION)
    assert len(index) == 12 and index.capacity().num_points == 34_688
    assert all(None not in index.frame(row).cameras for row in range(12))
    tables = {p.stem: json.loads(p.read_text()) for p in (tmp_path / VERSION).glob("*.json")}
    assert len(tables["sample_data"]) == len(tables["ego_pose"]) == 12 * 77
    boxes = {box["token"]: box for box in tables["sample_annotation"]}
    assert len(boxes) == 12 * 2
    for instance in tables["instance"]:
        box, seen = boxes[instance["first_annotation_token"]], 1
        while box["next"]:
            assert boxes[box["next"]]["prev"] == box["token"]
            box, seen = boxes[box["next"]], seen + 1
        assert box["token"] == instance["last_annotation_token"]
        assert seen == instance["nbr_annotations"]
