"""`python -m pipeline run` with blocks of two frames, so that the tiny city has several a stage."""

import dataclasses

from pipeline import graph
from pipeline.__main__ import main
from pipeline.errors import run_main

if __name__ == "__main__":
    for name, stage in graph.STAGES.items():
        graph.STAGES[name] = dataclasses.replace(stage, frames_per_block=2)
    run_main(main)
