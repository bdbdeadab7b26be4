import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from eval.report import write_report
from eval.results import write_result
from eval.view import Picture, Prediction, confusion_page, curves_page, prediction_page
from pipeline.errors import UserError
from tests.eval.test_comparison import NUSCENES
from tests.eval.test_results import RESULT
from train.run_folder import append_metrics

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "!doctype"}


class Page(HTMLParser):
    """Rows of text cells, image sources, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def report(tmp_path, scenes=()):
    path = write_report(
        tmp_path / "report.html", tmp_path / "runs", tmp_path / "pictures", list(scenes), "a < b"
    )
    return path.read_text()


def test_every_result_has_its_rows_and_nothing_is_loaded_from_elsewhere(tmp_path):
    runs = tmp_path / "runs"
    write_result(runs / "seal-<x>", RESULT)
    write_result(runs / "random", replace(RESULT, init="random", init_epochs=0, miou=(8.0,) * 3))
    kitti = replace(
        RESULT, dataset="semantickitti", place="kitti", classes=("road", "pole", "tree")
    )
    write_result(runs / "random", replace(kitti, convention="slidr"))
    append_metrics(runs / "seal-<x>", {"epoch": 0, "step": 0, "lr": 0.1, "loss": 2.0})
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "frame.png").write_bytes(PNG)
    text = report(tmp_path, [Picture("scene & all", PNG)])
    page = Page(text)
    assert page.open == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    # bars of two columns, curves, picture, scene, confusion matrices
    assert len(page.images) == 2 + 1 + 1 + 1 + 3
    assert all(source.startswith("data:image/png;base64,") for source in page.images)
    assert "seal-&lt;x&gt;" in text and "seal-<x>" not in text
    assert "scene &amp; all" in text and "a &lt; b" in text
    scores = {row[-1] + row[1]: row for row in page.rows if row[0] == "linear"}
    assert len(scores) == 3
    seal = scores["seal-<x>synthetic-tiny"]  # of the table of every result
    assert seal[2:5] == ["1pct", "seal/slic, 10 epochs", "33.00 \u00b1 3.00"]
    assert scores["randomsynthetic-tiny"][3:5] == ["random", "8.00 \u00b1 0.00"]
    # classes of each data set head their own table; a class absent for all seeds has a dash
    assert ["run", "car", "bus", "<truck>"] in page.rows
    assert ["run", "road", "pole", "tree"] in page.rows
    assert ["seal-<x>: linear 1pct", "66.0", "\u2013", "0.0"] in page.rows
    assert "left out" in text and "as SLidR does" in text


def test_links_lead_to_sections_and_the_paper_is_in_every_report(tmp_path):
    write_result(tmp_path / "runs" / "mine", RESULT)  # of a data set that the paper does not have
    text = report(tmp_path)
    links, anchors = re.findall("href='#([^']*)'", text), re.findall("<h2 id='([^']*)'", text)
    assert links == anchors and len(set(anchors)) == 10
    rows = {tuple(row[:2]) for row in Page(text).rows}
    assert ("Seal (ResNet-50 teacher, MinkUNet34) (published)", "44.95") in rows
    assert ("MinkUNet34 (Seal) (published)", "92.63") in rows
    heads = [row for row in Page(text).rows if row[:2] == ["start", "nuScenes LP"]]
    assert heads[0][2:7] == [f"nuScenes {share}%" for share in (1, 5, 10, 25, 100)]
    assert text.count("<details>") == 1 and "SuperFlow" in text.split("<details>")[1]


@pytest.mark.slow
def test_a_browser_has_nothing_to_say(tmp_path):
    """Headless Chromium at a laptop's width: no console message, and a page that is not blank."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium on this machine")
    write_result(tmp_path / "runs" / "mine", replace(RESULT, dataset="nuscenes"))
    report(tmp_path)
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync"
    command = [browser, *options.split(), "--no-first-run", f"--user-data-dir={tmp_path / 'user'}"]
    command += ["--enable-logging=stderr", "--v=0", "--window-size=1366,2000"]
    command += [f"--screenshot={tmp_path / 'shot.png'}", f"file://{tmp_path / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    shot = cv2.imread(str(tmp_path / "shot.png"), cv2.IMREAD_GRAYSCALE)
    assert shot.shape == (2000, 1366) and 0.02 < (shot < 200).mean() < 0.5


def test_cells_of_the_table_are_in_the_report_with_all_their_seeds(tmp_path):
    for seed, miou in ((0, 40.0), (1, 44.0)):
        result = replace(RESULT, miou=(miou,), miou_seen=None, seeds=(seed,))
        result = replace(result, per_class_iou=((miou, miou, miou),))
        write_result(tmp_path / "runs" / "table" / f"seal-synthetic-tiny-{seed}", result)
    rows = {row[-1]: row for row in Page(report(tmp_path)).rows if row[0].startswith("seal/slic")}
    assert rows["table/seal-synthetic-tiny-*"][1] == "42.00 \u00b1 2.83"


def test_pages_of_stage_one_say_what_they_show(tmp_path):
    write_result(tmp_path / "runs" / "mine", RESULT)
    (tmp_path / "pictures").mkdir()
    for name in ("row000012-superpixels-slic@x", "row000000-projections", "other"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(PNG)
    text = report(tmp_path)
    assert "superpixels, slic@x: frame 12 of the index<" in text
    assert "points over the images: frame 0 of the index<" in text and ">other<" in text


def test_published_numbers_are_marked_and_stand_apart(tmp_path):
    write_result(tmp_path / "runs" / "mine", NUSCENES)
    text = report(tmp_path)
    rows = {row[0]: row for row in reversed(Page(text).rows)}  # the first of a name
    name = "Seal (ResNet-50 teacher, MinkUNet34) (published)"
    assert rows[name][1] == "45.84" and "README benchmark table" in rows[name][2]
    own = "33.00 \u00b1 3.00 (55.33 \u00b1 2.00)"
    assert rows["seal/slic, 10 epochs"][1:] == [own, "mine"]
    marked = re.findall(r"<tr class=published><td>([^<]*)", text)
    assert marked and all(cell.endswith("(published)") for cell in marked)
    assert "our number counted their way stands in brackets" in text


def test_runs_that_lack_a_field_or_were_split_otherwise_are_refused(tmp_path):
    write_result(tmp_path / "runs" / "a", RESULT)
    write_result(tmp_path / "runs" / "b", replace(RESULT, split_hash="f" * 16))
    with pytest.raises(UserError, match="report: split_hash of .* must be the same in every run"):
        report(tmp_path)
    path = tmp_path / "runs" / "b" / "results" / f"{RESULT.name}.json"
    path.write_text(path.read_text().replace('"num_val"', '"n_val"'))
    with pytest.raises(UserError, match="got one without the field 'num_val'; remove it"):
        report(tmp_path)
    path = tmp_path / "runs" / "a" / "robustness" / "x.json"
    path.parent.mkdir()
    path.write_text('{"name": "x", "protocol": "linear"}')
    (tmp_path / "runs" / "b" / "results" / f"{RESULT.name}.json").unlink()
    with pytest.raises(UserError, match="x.json: must be .* without the field 'dataset'"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_prediction_of_the_wrong_length_is_refused():
    points = np.zeros((5, 4), np.float32)
    with pytest.raises(UserError, match=r"predicted must be one per point \(5\), got 4"):
        Prediction(points, np.zeros(5, np.uint8), np.zeros(4, np.uint8))


def test_a_page_without_pictures_says_so(tmp_path):
    write_result(tmp_path / "runs" / "a", RESULT)
    text = report(tmp_path)
    for line in ("No pretraining run", "make pictures", "No result on this data set"):
        assert line in text
    append_metrics(tmp_path / "runs" / "a", {"epoch": 0, "step": 0, "lr": 0.1})  # no loss
    assert "No pretraining run" in report(tmp_path)


def test_no_result_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="runs: must hold results, got none; run 'make probe'"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_curves_take_losses_that_begin_late():
    lines = [{"epoch": 0, "step": s, "lr": 0.1, "loss": 1.0, "fallbacks": 3} for s in range(4)]
    lines[2]["temporal_nce"] = 5.0
    assert curves_page(lines, "x").startswith(PNG)
    assert curves_page(lines[:1], "x").startswith(PNG)


def test_pictures_of_predictions_and_confusion():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 10, (50, 4)).astype(np.float32)
    shown = Prediction(points, rng.choice([0, 1, 255], 50).astype(np.uint8), np.ones(50, np.uint8))
    colors = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    assert prediction_page(shown, colors, ["a", "b"], "x").startswith(PNG)
    nothing = replace(shown, labels=np.full(50, 255, np.uint8))
    assert prediction_page(nothing, colors, ["a", "b"], "x").startswith(PNG)
    assert confusion_page(np.zeros((2, 2), int), ["a", "b"], "x").startswith(PNG)
