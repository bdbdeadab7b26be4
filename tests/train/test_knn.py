import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.small_runs import paths_of, small_recipe
from train.knn import draw, look, vote
from train.parallel import ALONE
from train.run_log import RunLog
from train.stores import Stores
from train.trainer import Machine, Training

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_nearest_have_the_say():
    known = torch.eye(3)[[0, 0, 1, 2]]
    classes = torch.tensor([4, 4, 1, 0])
    features = torch.nn.functional.normalize(torch.tensor([[3.0, 1, 0], [0, 1, 0.5], [0, 0, 1]]))
    # votes exp(cosine / 0.07): 0.95 twice for class 4 against 0.32 once; 0.89 against 0.45; 1
    assert vote(features, known, classes, 5).tolist() == [4, 1, 0]


def test_a_point_is_drawn_where_it_is():
    colors = np.array([[1, 2, 3], [200, 100, 50]], np.uint8)
    xy = np.array([[0.0, 0.0], [49.9, 49.9], [-51.0, 0.0]])  # center, upper right, outside
    picture = draw(xy, torch.tensor([1, 1, 1]), torch.tensor([0, 1, 1]), colors)
    assert picture.shape == (3, 256, 520)
    assert picture[:, 127, 128].tolist() == [200, 100, 50]
    assert picture[:, 127, 264 + 128].tolist() == [1, 2, 3]
    assert picture[:, 0, 255].tolist() == [200, 100, 50]
    truth = picture[:, :, :256].reshape(3, -1).any(0)
    assert truth.sum() == 2


def test_a_look_changes_nothing_and_is_logged_with_pictures(stores, tmp_path):
    training = Training(small_recipe(), Machine("native"))
    training.start_epoch(0)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    generator = training.generator.get_state()
    found = look(training, paths_of(stores))
    assert training.network.training
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(training.generator.get_state(), generator)
    assert 100 / 16 < found.accuracy <= 100 and 0 < found.miou <= found.accuracy
    with RunLog(tmp_path, ALONE, 0, 1) as log:
        log.look(7, found)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("knn/miou")[0].step == 7
    assert set(events.Tags()["images"]) >= {"knn/truth_prediction_0"}


def test_no_labels_no_look(stores, monkeypatch):
    read = Stores.store
    training = Training(small_recipe(), Machine("native"))

    class Blind:
        def __init__(self, store):
            self.store = store

        def __getattr__(self, name):
            return getattr(self.store, name)

        def read(self, name, *where):
            return np.False_ if name == "has_labels" else self.store.read(name, *where)

    monkeypatch.setattr(Stores, "store", lambda self, stage: Blind(read(self, stage)))
    assert look(training, paths_of(stores)) is None
