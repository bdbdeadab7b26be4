from tests.train.small_runs import here, one_thread  # noqa: F401
