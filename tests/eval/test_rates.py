from eval.rates import finetuning


def test_published_rates():
    assert (finetuning("nuscenes", False).lr, finetuning("nuscenes", False).head_lr) == (0.02, 2.0)
    assert finetuning("nuscenes", False).batch_size == 16
    assert finetuning("semantickitti", False).batch_size == 10
    assert finetuning("daps3d", False).head_lr == 0.2
    assert finetuning("rellis3d", False).batch_size == 2
    for dataset in ("nuscenes", "daps3d", "anything"):
        random = finetuning(dataset, True)
        assert (random.lr, random.head_lr, random.epochs) == (0.05, None, 100)
