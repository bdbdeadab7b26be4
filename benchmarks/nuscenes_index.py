"""The index of full-size nuScenes beside `NuScenes(...)` of the devkit: time and memory.

    python -m benchmarks.nuscenes_index [--samples 34149] [--boxes 0] [--folder DIR] [--rounds 1]

Tables are made up at the size of v1.0-trainval: 850 scenes with the real names, 34,149 samples, per
sample 77 rows of sample_data and ego_pose (10 scans, 6 images of each of 6 cameras, 31 radar
sweeps), and keyframe scans as sparse files. Without `--boxes 34` a sample (v1.0-trainval has 34.15)
the devkit is spared 1.2 million records that the index never opens. Each side runs in a process of
its own, one after the other; memory is the process's peak (imports included). Tables take 2.1 GB of
disk, 0.7 GB more with boxes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.nuscenes_tables import NUM_SAMPLES, write_release
from benchmarks.peers import DEVKIT

DEVKIT_SCRIPT = """
import json, resource, sys, time
from nuscenes import NuScenes
wall, cpu = time.perf_counter(), time.process_time()
found = NuScenes("v1.0-trainval", sys.argv[1], verbose=False)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": len(found.sample), "wall": wall, "cpu": cpu, "peak": peak}))
"""
OURS = """
import json, os, resource, sys, time
from pathlib import Path
from pipeline.datasets.table import load_reader
from pipeline.index import build_index, read_index, write_index
what, root, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if what == "build":
    load_reader("nuscenes")  # imports count on neither side
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
before = resident()
wall, cpu = time.perf_counter(), time.process_time()
if what == "build":
    index = build_index("nuscenes", root, "v1.0-trainval")
    write_index(path, index)
else:
    index = read_index(path)
    index.frame(len(index) - 1)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": len(index), "wall": wall, "cpu": cpu, "peak": peak, "before": before,
                  "after": resident(), "size": os.path.getsize(path) / 2**20}))
"""


def measure(what: str, root: Path, path: Path) -> dict[str, float]:
    """Return what a process of ours says that builds or reads the index."""
    words = [sys.executable, "-c", OURS, what, str(root), str(path)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--boxes", type=int, default=0, help="in each sample")
    parser.add_argument("--folder", type=Path, help="keep and reuse the tables here")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (given.folder or Path(scratch)) / f"nuscenes-{given.samples}-{given.boxes}"
        if not root.exists():
            write_release(root, given.samples, given.boxes)
        path = Path(scratch) / "index.parquet"
        sides: dict[str, list[dict[str, float]]] = {"NuScenes(...)": [], "index": []}
        measure("build", root, path)  # compiles
        for _ in range(given.rounds):
            sides["NuScenes(...)"].append(json.loads(DEVKIT.run(DEVKIT_SCRIPT, str(root))))
            sides["index"].append(measure("build", root, path))
        read = measure("read", root, path)
    best = {name: min(found, key=lambda one: one["cpu"]) for name, found in sides.items()}
    for name, one in best.items():
        text = f"{one['wall']:6.1f} s, {one['cpu']:6.1f} s CPU, peak {one['peak']:6.0f} MB"
        print(f"{name:14} {text}, {one['rows']} samples")
    theirs, ours = best.values()
    print(
        f"ratio {theirs['wall'] / ours['wall']:.1f} in time, {theirs['cpu'] / ours['cpu']:.1f} in "
        f"CPU time (reach 5), {theirs['peak'] / ours['peak']:.1f} in memory (reach 4)"
    )
    print(
        f"reading back {read['size']:.0f} MB: {read['wall']:.2f} s, {read['cpu']:.2f} s CPU "
        f"(under 1), peak {read['peak']:.0f} MB of which imports {read['before']:.0f}, resident "
        f"after {read['after']:.0f} (under 300)"
    )


if __name__ == "__main__":
    main()
