"""On PYTHONPATH of a test this poisons every child process that computes blocks (tests/.../poison).

Python imports a module of this name at start. Only children are touched: commands and Dask workers
run as they are.
"""

import sys

if "from pipeline.worker import main; main()" in sys.orig_argv:
    from tests.pipeline import poison

    poison.apply()
