import cv2
import numpy as np

from eval.page import fit, table
from eval.view import Picture


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def test_a_photo_becomes_jpeg_and_a_drawing_stays_png():
    rng = np.random.default_rng(0)
    photo = Picture(
        "photo", png(cv2.GaussianBlur(rng.integers(0, 255, (90, 90, 3), np.uint8), (5, 5), 0))
    )
    drawing = Picture("drawing", png(np.zeros((90, 90, 3), np.uint8)))
    (found,) = fit([[photo, drawing]])
    assert found[0].png.startswith(b"\xff\xd8\xff") and len(found[0].png) < len(photo.png)
    assert found[1].png == drawing.png


def test_pictures_shrink_together_until_the_page_fits():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    groups = [[Picture("a", png(noise))], [Picture("b", png(noise))]]
    limit = 1_000_000 + 60_000
    found = fit(groups, limit)
    total = sum(len(p.png) for group in found for p in group)
    assert 0 < total * 4 / 3 <= 60_000
    assert [p.title for group in found for p in group] == ["a", "b"]


def test_published_rows_are_marked():
    text = table(["a", "b"], [["x", "1"], ["<y>", "2"]], "", (1,))
    assert text.count("<tr class=published>") == 1 and "&lt;y&gt;" in text
