import json

import numpy as np
import orjson
import pytest

from pipeline.json_scan import ABSENT, find_records, hash_values

RECORDS = [
    {"token": "a", "is_key": True, "list": [1, {"token": "inner"}], "n": -1.5e-3},
    {"n": 7, "token": "b}, {", "is_key": False, "list": []},
    {"token": 'c"\\', "nested": {"token": "x", "is_key": True}},
    {},
    {"is_key": None, "token": ""},
]
STYLES = {"compact": {"separators": (",", ":")}, "usual": {}, "indented": {"indent": 4}}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_records_and_values_are_those_of_a_json_parser(style):
    data = json.dumps(RECORDS, **style).encode()
    found = find_records(data, ["token", "is_key"])
    assert [orjson.loads(data[start:stop]) for start, stop in found.bounds] == RECORDS
    assert found.is_list and found.rest == len(data)
    assert found.odd.tolist() == [False, False, True, False, False]
    tokens = hash_values(["a", "b}, {", ""])
    assert found.hashes[[0, 1, 4], 0].tolist() == tokens.tolist()
    assert found.hashes[:2, 1].tolist() == hash_values([True, False]).tolist()
    assert found.hashes[3].tolist() == [ABSENT, ABSENT] and found.hashes[2, 1] == ABSENT
    assert len(np.unique(tokens)) == 3


def test_text_cut_anywhere_gives_the_records_before_the_cut():
    data = json.dumps(RECORDS).encode()
    whole = find_records(data, ["token"])
    for cut in range(len(data)):
        found = find_records(data[:cut], ["token"])
        complete = int((whole.bounds[:, 1] <= cut).sum())
        np.testing.assert_array_equal(found.bounds, whole.bounds[:complete])
        np.testing.assert_array_equal(found.hashes, whole.hashes[:complete])
        after = find_records(data[min(found.rest, cut) :], ["token"])
        assert len(after.bounds) == len(RECORDS) - complete


def test_other_things_between_records_are_told():
    assert not find_records(b'[{"token": "a"}, 5]', ["token"]).is_list
    assert not find_records(b'{"rows": [{"token": "a"}]} x', ["token"]).is_list
