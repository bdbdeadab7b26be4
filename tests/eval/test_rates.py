from eval.rates import finetuning


def test_published_rates():
    nuscenes, kitti, rellis, daps = (
        finetuning(name, False, "1pct")
        for name in ("nuscenes", "semantickitti", "rellis3d", "daps3d")
    )
    assert (nuscenes.lr, nuscenes.head_lr, nuscenes.batch_size) == (0.02, 2.0, 16)
    assert (kitti.batch_size, daps.head_lr) == (10, 0.2)
    assert rellis.batch_size == 2
    assert finetuning("rellis3d", False, "10pct").batch_size == 10
    for dataset in ("nuscenes", "daps3d", "anything"):
        random = finetuning(dataset, True, "1pct")
        assert (random.lr, random.head_lr, random.epochs) == (0.05, None, 100)
