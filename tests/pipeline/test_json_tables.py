import numpy as np
import orjson
import pyarrow as pa
import pytest

from pipeline import json_pieces, json_scan, json_tables
from pipeline.errors import UserError
from pipeline.json_fields import RAW, batch_of_records
from tests.pipeline.datasets.tiny_nuscenes import make_tables, write_tables

ALL = json_tables.Choice((), lambda found: np.ones(len(found), bool))
SHOT = pa.schema(
    [
        ("token", pa.string()),
        ("timestamp", pa.int64()),
        ("is_key_frame", pa.bool_()),
        ("height", RAW),
    ]
)
POSE = pa.schema([("token", pa.string()), ("rotation", pa.list_(pa.float64(), 4))])


def rows_of(path, schema, choice=ALL):
    """The rows that streaming gives, after a comparison with those of a complete parser."""
    table = pa.Table.from_batches(json_tables.stream_columns(path, schema, choice), schema)
    if choice is ALL:
        records = orjson.loads(path.read_bytes())
        assert table.equals(pa.Table.from_batches([batch_of_records(records, schema, path)]))
    return table.to_pylist()


@pytest.mark.parametrize("piece", [40, 333, 1 << 20])
@pytest.mark.parametrize("option", [None, orjson.OPT_INDENT_2])
def test_streaming_gives_the_same_records_whatever_the_piece(tmp_path, monkeypatch, piece, option):
    write_tables(tmp_path, make_tables())
    monkeypatch.setattr(json_tables, "PIECE_BYTES", piece)
    monkeypatch.setattr(json_pieces, "TAIL_BYTES", 50)
    path = tmp_path / "v1.0-mini/sample_data.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()), option=option))
    assert len(rows_of(path, SHOT)) == len(make_tables()["sample_data"])
    assert len(rows_of(path.with_name("ego_pose.json"), POSE)) == len(make_tables()["ego_pose"])
    # cuts fall inside records, and records seem to start inside strings
    odd = [{"token": "}, {" * k, "timestamp": k, "is_key_frame": k % 2 == 0} for k in range(99)]
    path.write_bytes(orjson.dumps(odd, option=option))
    assert [row["token"] for row in rows_of(path, SHOT)] == [row["token"] for row in odd]
    deep = [{"token": "a", "rotation": [0, 0, 0, k], "x": [{"b": [1]}] * 9} for k in range(9)]
    path.write_bytes(orjson.dumps(deep, option=option))
    assert len(rows_of(path, POSE)) == 9


ODD = [
    '{"\\u0074oken": "\\u0061", "timestamp": 1, "is_key_frame": true}',
    '{"is_key_frame":false,"timestamp":-12,"token":"\u00e9\u4e2d","height":null}',
    '{"token": "a", "token": "b", "timestamp": 0, "is_key_frame": true, "height": 1.5e3}',
    '{"token": "", "timestamp": 999999999999999999, "is_key_frame": true, "height": "6"}',
    '{"token": "q\\"}, {\\"", "timestamp": 1, "is_key_frame": true, "x": {"token": "y"}}',
    '{"token": "a", "timestamp": 9223372036854775807, "is_key_frame": true, "height": [1, 2]}',
    '{"token": "a", "timestamp": 5, "is_key_frame": false, "l": [], "m": [[1], []], "n": -0.5E+2}',
]


@pytest.mark.parametrize("text", [*ODD, ",".join(ODD)])
@pytest.mark.parametrize("piece", [30, 1 << 20])
def test_odd_spellings_are_read_as_a_complete_parser_does(tmp_path, monkeypatch, text, piece):
    monkeypatch.setattr(json_tables, "PIECE_BYTES", piece)
    (tmp_path / "t.json").write_text(f" [\n{text} ]\t", encoding="utf-8")
    assert rows_of(tmp_path / "t.json", SHOT)


NUMBERS = "0 -0.0 1 -1 0.1 5e-324 1.7976931348623157e308 1e22 1e23 9007199254740993 2.5E+3 1E-7 "
NUMBERS += "1e-400 -1e-320"


def test_numbers_are_those_of_a_complete_parser(tmp_path):
    drawn = np.random.default_rng(0).normal(size=3986) * 10.0 ** np.arange(3986) ** 0.5
    texts = [*NUMBERS.split(), *map(repr, drawn.tolist())]
    rows = [
        f'{{"token":"a","rotation":[{", ".join(texts[k : k + 4])}]}}' for k in range(0, 4000, 4)
    ]
    (tmp_path / "t.json").write_text("[" + ",".join(rows) + "]")
    found = [x for row in rows_of(tmp_path / "t.json", POSE) for x in row["rotation"]]
    assert [x.hex() for x in found] == [float(text).hex() for text in texts]


@pytest.mark.parametrize(
    "record",
    [
        '{"token": "a" "timestamp": 1, "is_key_frame": true}',
        '{"token": "a", "timestamp": 01, "is_key_frame": true}',
        '{"token": "a", "timestamp": 1, "is_key_frame": yes}',
        '{"token": "a", "timestamp": 1, "is_key_frame": truefalse}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, }',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, "x": 1.}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, "x": -}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, "x": [1 2]}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, "x": [1,]}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, "x": nul}',
        '{"token": "a\tb", "timestamp": 1, "is_key_frame": true}',
        '{"token": "a", "timestamp": 1, "is_key_frame": true, x: 1}',
        '{"token": "a", "timestamp", "is_key_frame": true}',
    ],
)
def test_broken_spelling_is_refused(tmp_path, record):
    (tmp_path / "t.json").write_text(f"[{record}]")
    with pytest.raises(UserError, match=r"t\.json: table must be a JSON list.*broken JSON"):
        rows_of(tmp_path / "t.json", SHOT)


@pytest.mark.parametrize(
    "text", ['[{"token": "a"}', '[{"token": "a"}, 5]', '{"rows": [{"token": "a"}]}', "", "5"]
)
@pytest.mark.parametrize("piece", [4, 1 << 20])
def test_streaming_refuses_what_is_no_list_of_records(tmp_path, monkeypatch, text, piece):
    monkeypatch.setattr(json_tables, "PIECE_BYTES", piece)
    (tmp_path / "t.json").write_text(text)
    nothing = json_tables.Choice(("token",), lambda found: np.zeros(len(found), bool))
    with pytest.raises(UserError, match=r"t\.json: table must be a JSON list of records"):
        rows_of(tmp_path / "t.json", SHOT, nothing)


def test_only_chosen_records_are_looked_at(tmp_path):
    (tmp_path / "t.json").write_text(
        '[{"token": "a", "timestamp": 1}, {"token": "b", "timestamp": oops}]'
    )
    wanted = json_scan.HashSet(json_scan.hash_values(["a"]))
    choice = json_tables.Choice(("token",), lambda found: wanted.holds(found[:, 0]))
    schema = pa.schema([("token", pa.string()), ("timestamp", pa.int64())])
    assert rows_of(tmp_path / "t.json", schema, choice) == [{"token": "a", "timestamp": 1}]


def test_numbers_beyond_a_float_are_refused(tmp_path):
    (tmp_path / "t.json").write_text('[{"token": "a", "rotation": [1, 0, 0, 1e999]}]')
    with pytest.raises(UserError, match=r"t\.json: table must be a JSON list.*number is infinity"):
        rows_of(tmp_path / "t.json", POSE)
