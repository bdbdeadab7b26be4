"""Commands of stage one: `python -m pipeline COMMAND --help`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.errors import EXIT_QUARANTINED, EXIT_USER_ERROR, UserError, check, run_main
from pipeline.options import gathered
from pipeline.stage_options import (
    PLACE_OPTIONS,
    Chosen,
    Data,
    Running,
    data_options,
    frame_options,
    run_options,
)

if TYPE_CHECKING:
    from pipeline.cluster import Cluster
    from pipeline.scheduler import Where
    from pipeline.stage import Place, StageName


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage one: recordings in; images, superpixels, projections and segments out (Zarr)."""


@dataclass(frozen=True)
class Wish:
    """What a run was asked to make."""

    names: list["StageName"]
    source: str
    settings: tuple[str, ...]
    rows: np.ndarray  # chosen frames
    shard: tuple[int, int] = (0, 1)
    rebuild: bool = False
    retry_quarantined: bool = False


@main.command()
def doctor() -> None:
    """Print versions, engines, sources, BLAS, GPU; exit 2 if no engine works or two differ."""
    from pipeline.doctor import report

    lines, usable = report()
    click.echo("\n".join(lines))
    if not usable:
        raise UserError(
            "environment: an engine must work and all that do must agree, see the lines above; "
            "run 'make env'"
        )


@main.command()
@click.option("--root", type=Path, help="Folder to make [data/city-<size>-<seed>[-<lidar>]].")
@click.option("--size", default="demo", help="tiny (tests), demo (minutes), full (experiments).")
@click.option("--seed", type=int, default=0, help="Another seed is another city altogether.")
@click.option("--lidar", default="beams32", help="beams32 as on nuScenes, beams64 as on KITTI.")
def synthesize(root: Path | None, size: str, seed: int, lidar: str) -> None:
    """Write a made-up drive in nuScenes format; byte-identical when made twice."""
    from pipeline.synthetic.find import default_folder
    from pipeline.synthetic.write import synthesize

    root = root or default_folder(size, seed, lidar)
    synthesize(root, size, seed, lidar)
    click.echo(root)


@main.command()
@data_options
def index(data: Data) -> None:
    """Build or extend a data set's index and check it against the files; exit 3 on problems."""
    place = data.find()
    if _report(place, _index(place, fresh=True)):
        sys.exit(EXIT_QUARANTINED)


@main.command("check")
@gathered("data", Data, click.argument("dataset"), *PLACE_OPTIONS)
@click.option("--frames", "count", type=click.IntRange(1), default=3, help="Frames to draw.")
@click.option("--out", type=Path, help="Folder for the PNG files [<stores>/<dataset>/pictures].")
def check_command(data: Data, count: int, out: Path | None) -> None:
    """Do what `index` does, and draw points over images and labels from above."""
    from pipeline.check import draw_check

    place = data.find()
    built = _index(place, fresh=True)
    problems = _report(place, built)
    for path in draw_check(built, place.root, out or place.folder / "pictures", count):
        click.echo(path)
    if problems:
        sys.exit(EXIT_QUARANTINED)


@main.command()
@data_options
@frame_options
@click.option("--stage", "stages", multiple=True, help="Only this stage (repeatable) [all four].")
@click.option("--source", default="slic", help="Superpixel source, 'slic' or 'slic@label'.")
@click.option("--shard", default="0/1", help="i/n: every n-th block from the i-th; no scheduler.")
@click.option("--set", "settings", multiple=True, help="key=value of the stage's config.")
@click.option("--rebuild", is_flag=True, help="Replace a store that was made with other settings.")
@click.option("--retry-quarantined", is_flag=True, help="Compute quarantined frames again.")
@click.option("--dry-run", is_flag=True, help="Say what is done and what is to do, and stop.")
@run_options
def run(
    data: Data,
    chosen: Chosen,
    stages: tuple[str, ...],
    source: str,
    shard: str,
    settings: tuple[str, ...],
    rebuild: bool,
    retry_quarantined: bool,
    dry_run: bool,
    running: Running,
) -> None:
    """Run stage one, or single stages of it; done blocks are skipped."""
    from pipeline.stage import StageName, check_settings, describe_capacity, usable_stages

    names = [StageName.parse(text) for text in stages or _all_stages()]
    check(
        not settings or len(names) == 1,
        f"--set: must go with one --stage, got {len(names)} stages; add --stage NAME",
    )
    part, where = _parse_shard(shard), running.where()
    check(
        not rebuild or part[1] == 1,
        f"--rebuild: must not go with --shard {shard}, which would replace what other shards make; "
        "rebuild once with --limit 1, then start the shards",
    )
    place = data.find()
    place_index = _index(place)
    rows = chosen.rows(place_index)
    click.echo(f"{place.folder}: {describe_capacity(place_index.capacity())}", err=True)
    if not stages:
        names, absent = usable_stages(names, place_index)
        for line in absent:
            click.echo(f"{data.dataset}: {line}", err=True)
    check_settings(names, source, place, settings)
    wish = Wish(names, source, settings, rows, part, rebuild, retry_quarantined)
    if dry_run:
        _show_plan(wish, place, place_index, where, running.device)
    else:
        _run_stages(wish, place, place_index, where, running)


@main.command()
@data_options
def verify(data: Data) -> None:
    """Rehash every block; bad ones lose their marker, so that the next run repairs them."""
    from pipeline import verify
    from pipeline.progress import Progress
    from pipeline.store import open_store

    folder = data.find(need_root=False).folder
    paths = sorted(folder.glob("*.zarr"))
    check(bool(paths), f"{folder}: must hold stores, got none; run 'make superpixels' first")
    damage = verify.index_damage(folder / "index.parquet")
    if damage:
        click.echo(f"{damage}; run 'make index', which builds it again")
    any_bad = bool(damage)
    for path in paths:
        try:
            bad = verify.verify_metadata(path)
            num_blocks = open_store(path).num_blocks
        except UserError as error:
            click.echo(error)
            any_bad = True
            continue
        for line in bad:
            click.echo(f"{path}: {line}")
        progress = Progress(f"verify {path.name}", num_blocks, "blocks")
        good, bad_blocks = verify.verify(path, progress.advance)
        for line in bad_blocks:
            click.echo(f"{path}: {line}; the next run makes it again")
        missing = num_blocks - good - len(bad_blocks)
        click.echo(f"{path}: {good} blocks good, {len(bad_blocks)} bad, {missing} not done")
        any_bad = any_bad or bool(bad or bad_blocks)
    if any_bad:
        sys.exit(EXIT_USER_ERROR)


@main.command("import-masks")
@data_options
@click.option("--folder", type=Path, required=True, help="Holds <camera token>.png, native size.")
@click.option("--label", help="Name of the store, superpixels-images@LABEL.zarr.")
@click.option("--rebuild", is_flag=True, help="Replace the masks that the store holds.")
@run_options
def import_masks(
    data: Data,
    folder: Path,
    label: str | None,
    rebuild: bool,
    running: Running,
) -> None:
    """Make a superpixel store from PNG masks, 8 or 16 bit, numbers kept as they are."""
    from pipeline import masks
    from pipeline.making import remove_store
    from pipeline.plan import choose_blocks, plan
    from pipeline.stage import StageName, prepare

    where = running.where()
    place = data.find()
    index = _index(place)
    folder = folder.expanduser().resolve()
    rows = np.arange(len(index))
    masks.check_complete(folder, index, rows)
    source = f"images@{label}" if label else "images"
    wish = Wish([StageName("superpixels")], source, (f"folder={folder}",), rows, rebuild=rebuild)
    job, store = prepare(*wish.names, source, place, index, wish.settings, rebuild, dry_run=True)
    if store is not None and rebuild:
        remove_store(job.store_path)
    elif store is not None:
        blocks = choose_blocks(store, rows)
        todo = {task.block for task in plan(store, index, blocks).tasks}
        masks.check_same_masks(store, index, [b for b in blocks if b not in todo], folder)
    _run_stages(wish, place, index, where, running)
    click.echo(job.store_path)


@main.command("export-masks")
@data_options
@frame_options
@click.option("--source", default="slic", help="Superpixel source, 'slic' or 'slic@label'.")
@click.option("--out", type=Path, required=True, help="Folder for <camera token>.png.")
@click.option("--bits", type=click.Choice(["8", "16"]), default="16", help="Per pixel.")
def export_masks(
    data: Data,
    chosen: Chosen,
    source: str,
    out: Path,
    bits: str,
) -> None:
    """Write superpixels as gray PNG files of native size, one per image; 0 = none."""
    from pipeline import masks
    from pipeline.index import read_index
    from pipeline.progress import Progress
    from pipeline.stage import StageName, store_name
    from pipeline.store import open_store

    folder = data.find(need_root=False).folder
    index = read_index(folder / "index.parquet")
    rows = chosen.rows(index).tolist()
    store = open_store(folder / store_name(StageName("superpixels"), source))
    progress = Progress("export", len(rows))
    count = masks.export_masks(store, index, rows, out, int(bits), progress.advance)
    progress.close()
    click.echo(f"{out}: {count} files of {bits} bits")


@main.command("inspect")
@click.argument("store", type=Path)
def inspect_store(store: Path) -> None:
    """Print a store's schema, provenance, sizes and compression."""
    from pipeline.describe import describe_store

    click.echo("\n".join(describe_store(store)))


@main.command()
@data_options
@click.option("--source", default="slic", help="Superpixel source to draw.")
@click.option("--frame", "frame_id", help="Frame id or row number [the first with a successor].")
@click.option("--out", type=Path, help="Folder for the PNG files [<stores>/<dataset>/pictures].")
def pictures(
    data: Data,
    source: str,
    frame_id: str | None,
    out: Path | None,
) -> None:
    """Draw superpixels and points over the images, and segments from above, as PNG."""
    from pipeline.draw import draw_frame
    from pipeline.index import read_index

    place = data.find(need_root=False)
    place_index = read_index(place.folder / "index.parquet")
    for path in draw_frame(place.folder, place_index, source, frame_id, out):
        click.echo(path)


@main.command()
@data_options
@click.option("--segments", default="segments", help="Store, 'segments' or 'segments@label'.")
def purity(data: Data, segments: str) -> None:
    """Measure segments against labels: purity, and moving objects that keep their id."""
    from pipeline.index import read_index
    from pipeline.segment_report import report_segments

    folder = data.find(need_root=False).folder
    found = report_segments(folder, read_index(folder / "index.parquet"), segments)
    check(found.num_pairs > 0, f"{folder}: a pair of labeled frames must be there, got none")
    click.echo(
        f"{found.num_pairs} pairs: {100 * found.clustered:.1f} % of points clustered, of them "
        f"{100 * found.purity:.1f} % (t) and {100 * found.purity_successor:.1f} % (t+n) in "
        "segments that are at least 90 % one object"
    )
    if found.num_moving:
        click.echo(
            f"same id at t and t+n: {100 * found.kept_moving:.1f} % of {found.num_moving} moving "
            f"objects, {100 * found.kept_all:.1f} % of all objects"
        )


def _show_plan(wish: Wish, place: "Place", index, where: "Where", device: str) -> None:
    """Say what is done, what is to do and what that takes; a SLURM job's script on stdout."""
    from pipeline import plan
    from pipeline.stage import block_frames, prepare

    num_workers = where.workers
    if where.kind == "slurm":
        from pipeline import slurm

        num_workers = slurm.num_workers(where.path)
        click.echo(slurm.job_script(where.path))
    for name in wish.names:
        job, store = prepare(
            name, wish.source, place, index, wish.settings, wish.rebuild, device, dry_run=True
        )
        if store is None:
            size = block_frames(job.stage, job.arrays)
            blocks = plan.blocks_of(wish.rows, size, wish.shard)
            num_frames = plan.count_frames(blocks, size, len(index))
            text = plan.estimate_new(job.arrays, num_frames)
            if num_frames:
                text += f"; {_trial_rate(job, index, wish.rows, num_frames, num_workers)}"
            click.echo(f"{job.store_path}: {text}", err=True)
            continue
        blocks = plan.choose_blocks(store, wish.rows, wish.shard)
        work = plan.plan(store, index, blocks, wish.retry_quarantined)
        text = plan.estimate(store, work.num_frames, num_workers)
        if plan.NO_RATE in text and job.stage == "superpixels":
            rate = _trial_rate(job, index, wish.rows, work.num_frames, num_workers)
            text = text.replace(plan.NO_RATE, rate)
        click.echo(f"{plan.describe(store, work)}: {text}", err=True)


def _trial_rate(job, index, rows: np.ndarray, num_frames: int, num_workers: int) -> str:
    """Return hours by a few images timed now, where the stage segments images and can here."""
    from pipeline import plan
    from pipeline.trial import time_images

    if job.stage != "superpixels":
        return plan.NO_RATE
    click.echo(f"{job.source_name}: timing a few images", err=True)
    try:
        trial = time_images(job, index, rows)
    except UserError as error:
        return f"{plan.NO_RATE} ({error})"
    return plan.estimate_measured(num_frames, num_workers, trial)


def _run_stages(wish: Wish, place: "Place", index, where: "Where", running: Running) -> None:
    """Run the stages one after the other, then list the frames that were given up."""
    from pipeline.blocks import quarantined_frames
    from pipeline.plan import choose_blocks, describe, plan
    from pipeline.run import run_tasks
    from pipeline.stage import prepare

    prepared = [
        prepare(
            name,
            wish.source,
            place,
            index,
            wish.settings,
            wish.rebuild,
            running.device,
            running.limits(),
        )
        for name in wish.names
    ]
    works = []
    for job, store in prepared:
        blocks = choose_blocks(store, wish.rows, wish.shard)
        works.append((job, store, blocks, plan(store, index, blocks, wish.retry_quarantined)))
    quarantined = []
    device, is_needed = running.device, any(work.tasks for *_, work in works)
    with _cluster(where if is_needed else None, device) as cluster:
        for job, store, blocks, work in works:
            click.echo(describe(store, work), err=True)
            run_tasks(job, work, cluster)
            for block in blocks:
                quarantined += [(store.path.name, q) for q in quarantined_frames(store, block)]
    if quarantined:
        _exit_quarantined(quarantined)


@contextlib.contextmanager
def _cluster(where: "Where | None", device: str) -> Iterator["Cluster | None"]:
    """Yield the cluster to compute on, None where the plain loop does or nothing is to do."""
    if where is None or where.kind == "serial":
        yield None
        return
    from pipeline.cluster import open_cluster

    with open_cluster(where, device) as cluster:
        yield cluster


def _all_stages() -> tuple[str, ...]:
    from pipeline.graph import STAGES

    return tuple(STAGES)


def _index(place: "Place", fresh: bool = False):
    """Return the data set's index, built where it is missing; `fresh` takes in new recordings."""
    from pipeline.files import file_of
    from pipeline.index import build_index, read_index, update_index, write_index
    from pipeline.verify import sealed_index

    path = place.folder / "index.parquet"
    if path.exists() and not fresh:
        index = read_index(path)
        first = index.frame(0).points_path
        check(
            (place.root / file_of(first)).exists(),
            f"{place.root}: must be the folder that {path} was built from, got one without "
            f"{first}; correct --root, or choose another --stores",
        )
        return index
    built = build_index(place.manifest.name, place.root, place.version)
    if path.exists():
        built = update_index(_read_or_warn(path) or built, built)
    with sealed_index(path):
        write_index(path, built)
    return built


def _report(place: "Place", built) -> bool:
    """Print problems and remarks of an index; return whether there are problems."""
    from pipeline.check import remarks
    from pipeline.index import validate

    problems = validate(built, place.root)
    for line in problems:
        click.echo(f"problem: {line}")
    for line in remarks(built):
        click.echo(f"note: {line}")
    click.echo(
        f"{place.folder / 'index.parquet'}: {len(built)} frames, {len(built.scenes())} scenes"
    )
    return bool(problems)


def _read_or_warn(path: Path):
    """Return the old index, or None with a warning where it is damaged."""
    from pipeline.index import read_index
    from pipeline.verify import index_damage

    try:
        damage = index_damage(path)
        check(damage is None, str(damage))
        return read_index(path)
    except UserError as error:
        click.echo(
            f"replaced: {error}; blocks whose rows moved are made again, "
            "all of them where the layout changed",
            err=True,
        )
        return None


def _exit_quarantined(quarantined: list) -> None:
    """List (store, frame) pairs that were given up, now or by an earlier run, and exit with 3."""
    for name, lost in quarantined:
        click.echo(f"quarantined {lost.frame_id} in {name}: {lost.reason}", err=True)
    click.echo(
        f"{len(quarantined)} frames quarantined; mend them and run again with --retry-quarantined",
        err=True,
    )
    sys.exit(EXIT_QUARANTINED)


def _parse_shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    valid = number.isdecimal() and count.isdecimal() and 0 <= int(number) < int(count)
    check(valid, f"--shard: must be i/n with 0 <= i < n, got '{text}'; for example --shard 0/4")
    return int(number), int(count)


if __name__ == "__main__":
    run_main(main)
