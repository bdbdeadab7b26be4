"""Segments of one nuScenes-size pair beside plain `hdbscan` on the same points, one core each.

    python -m benchmarks.segments [--pairs 2] [--rounds 2]

A pair is 11 scans of 34,688 points of the made-up city, half a second. Stage `segments` removes the
ground and clusters the rest; plain hdbscan (its own environment, benchmarks/peers.py) clusters the
same rest, with TARL's settings (20 points, default min_samples), every point. CPU seconds.

Two agreements are printed, since the stage departs from plain HDBSCAN on purpose. "Same input and
settings": our clustering without its limit on a cluster's footprint, against plain hdbscan on the
same thinned points; the tree is the library's own there, so this tests our choice of clusters. "As
shipped": ids of the stage (thinned, with the limit) against plain hdbscan on every point. Purity is
the share of clustered points in clusters of which 90 % is one object.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from sklearn.metrics import adjusted_rand_score  # noqa: E402

from benchmarks.peers import HDBSCAN  # noqa: E402
from benchmarks.recordings import NUSCENES_COLUMNS  # noqa: E402
from pipeline import segments  # noqa: E402
from pipeline.clusters import cluster_points, thin  # noqa: E402
from pipeline.geometry import move, rigid, rotation_from_quaternion  # noqa: E402
from pipeline.segment_truth import purity  # noqa: E402
from pipeline.synthetic.scene import draw_drive  # noqa: E402
from pipeline.synthetic.sensors import draw_rig, ego_pose, take_scan  # noqa: E402
from pipeline.synthetic.write import VERSION  # noqa: E402

NUM_SCANS, INTERVAL_S = 11, 0.05
NUM_POINTS = 32 * NUSCENES_COLUMNS
SCRIPT = """
import json, sys, time
import numpy as np
from hdbscan import HDBSCAN

given = np.load(sys.argv[1])
def cluster(points, **settings):
    start = time.process_time()
    labels = HDBSCAN(min_cluster_size=20, core_dist_n_jobs=1, **settings).fit_predict(points)
    return labels, time.process_time() - start
plain, seconds = cluster(given["points"])
exact = {"approx_min_span_tree": False}
thinned, thinned_seconds = cluster(given["thinned"], min_samples=int(sys.argv[3]), **exact)
np.savez(sys.argv[2], plain=plain, thinned=thinned)
print(json.dumps([seconds, thinned_seconds]))
"""


def take_pair(position: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return scans [34688, 5] float32, their T_world_lidar, and each point's object, 0 = none."""
    drive = draw_drive(0, position, "val", 2.0, VERSION)
    lidar = draw_rig(np.random.default_rng(position), 900, 1600)[0]
    clouds, transforms, objects = [], [], []
    for number in range(NUM_SCANS):
        rng, time_s = np.random.default_rng([position, number]), INTERVAL_S * number
        scan = take_scan(drive, lidar, time_s, 2 * NUSCENES_COLUMNS, rng)
        kept = np.sort(rng.choice(len(scan.points), NUM_POINTS, replace=False))
        translation, rotation = ego_pose(drive, time_s)
        T_world_ego = rigid(rotation_from_quaternion(rotation), translation)
        clouds.append(scan.points[kept])
        transforms.append(T_world_ego @ lidar.T_ego_sensor)
        category = np.array(drive.pieces.categories)[scan.pieces[kept]]
        instance = np.array(drive.pieces.instances)[scan.pieces[kept]]
        objects.append(instance * 65536 + category + 1)
    return clouds, transforms, objects


def compare(position: int, rounds: int, folder: Path) -> None:
    """Print one pair's times and agreements."""
    clouds, transforms, objects = take_pair(position)
    config, seconds = segments.Config(), []
    for _ in range(rounds + 1):  # the first compiles
        start = time.process_time()
        segments.segment_pair(clouds, transforms, config, seed=0)
        seconds.append(time.process_time() - start)
    kept = [
        segments.is_object(cloud, config, np.random.default_rng([0, k]))
        for k, cloud in enumerate(clouds)
    ]
    points = np.concatenate(
        [move(T, c[k]) for T, c, k in zip(transforms, clouds, kept, strict=True)]
    )
    truth = np.concatenate([o[k] for o, k in zip(objects, kept, strict=True)])
    settings = config.voxel_m, config.min_cluster_size, config.min_samples
    ours = cluster_points(points, *settings, config.max_footprint_m2)
    unlimited = cluster_points(points, *settings, np.inf)
    first, voxel_of_point = thin(points, config.voxel_m)
    np.savez(folder / "points.npz", points=points, thinned=points[first])
    paths = str(folder / "points.npz"), str(folder / "labels.npz")
    theirs_s, thinned_s = json.loads(HDBSCAN.run(SCRIPT, *paths, str(config.min_samples)))
    with np.load(folder / "labels.npz") as found:
        plain, plain_thinned = found["plain"], found["thinned"][voxel_of_point]
    best = min(seconds[1:])
    print(f"pair {position}: {NUM_SCANS} x {NUM_POINTS} points, {len(points)} not ground:")
    print(f"  plain hdbscan {theirs_s:.2f} s, stage {best:.2f} s: {theirs_s / best:.1f} times")
    print(f"  plain hdbscan on the {len(first)} thinned points {thinned_s:.2f} s")
    same, shipped = (
        adjusted_rand_score(a, b) for a, b in ((unlimited, plain_thinned), (ours, plain))
    )
    print(f"  adjusted Rand index, same input and settings {same:.3f}, as shipped {shipped:.3f}")
    for name, labels in (("plain", plain), ("plain thinned", plain_thinned), ("stage", ours)):
        share = 100 * np.mean(labels >= 0)
        print(f"  {name}: purity {purity(labels + 1, truth):.3f}, {share:.0f} % clustered")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for position in range(given.pairs):
            compare(position, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
