"""`python -m pipeline run` where frame 2 kills its process and frame 5 hangs, in every worker."""

import dataclasses
import os
import time

from pipeline import graph
from pipeline.__main__ import main
from pipeline.errors import run_main


def poisoned(context, row, out):
    if row == 2:
        os._exit(9)
    if row == 5:
        time.sleep(1000)
    graph.frames(context, row, out)


# at import, so that workers, which import the main module again, are poisoned too
graph.STAGES["frames"] = dataclasses.replace(graph.STAGES["frames"], fill=poisoned)

if __name__ == "__main__":
    run_main(main)
