import numpy as np

from eval.sources_page import SourceView, _paint, read_sources, sources_page
from tests.train.small_runs import paths_of
from train.stores import Stores


def test_borders_are_bright_and_what_has_no_id_stays():
    image = np.full((4, 6, 3), 100, np.uint8)
    ids = np.zeros((4, 6), np.uint16)
    ids[:, 3:] = 2
    painted = _paint(SourceView("x", image, ids))
    assert (painted[:, 3] == (255, 255, 90)).all()
    assert (painted[:, :3] == 100).all()
    assert (painted[:, 4:] != 100).any()


def test_every_source_of_a_folder_is_found(stores):
    opened = Stores(paths_of(stores))
    views = read_sources(opened, 5)
    assert [view.name for view in views] == ["oracle"]
    assert views[0].ids.shape == views[0].image.shape[:2]
    two = [views[0], SourceView("other", views[0].image, views[0].ids * 0)]
    assert sources_page(two).startswith(b"\x89PNG")
