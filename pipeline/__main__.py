"""Commands of stage one: `python -m pipeline COMMAND --help`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.errors import EXIT_QUARANTINED, EXIT_USER_ERROR, UserError, check, run_main

if TYPE_CHECKING:
    from pipeline.stage import Place

CITY = "synthetic"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage one: recordings in; images, superpixels, projections and segments out (Zarr)."""


def dataset_options(command):
    """Add the options that say which data set, where it is and where its stores go."""
    options = [
        click.option("--dataset", default=CITY, help="Name of a manifest in data_manifests/."),
        click.option("--root", type=str, help="Folder of the recordings [else <DATASET>_ROOT]."),
        click.option("--version", help="Version folder; for synthetic SIZE or SIZE-SEED."),
        click.option("--stores", type=Path, default=Path("stores"), help="Folder for all stores."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def frame_options(command):
    """Add the options that choose frames."""
    options = [
        click.option("--scenes", help="Comma-separated scenes; whole blocks that contain them."),
        click.option("--limit", type=click.IntRange(1), help="At most this many frames."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
def doctor() -> None:
    """Print versions, engines, superpixel sources, BLAS and GPU; exit 2 if no engine works."""
    from pipeline.doctor import report

    lines, usable = report()
    click.echo("\n".join(lines))
    if not usable:
        raise UserError("environment: an engine must work, got none; run 'make env'")


@main.command()
@click.option("--root", type=Path, help="Folder to make [data/city-<size>-<seed>].")
@click.option("--size", default="demo", help="tiny (tests), demo (minutes), full (experiments).")
@click.option("--seed", type=int, default=0, help="Another seed is another city altogether.")
def synthesize(root: Path | None, size: str, seed: int) -> None:
    """Write a made-up drive in nuScenes format; byte-identical when made twice."""
    from pipeline.synthetic.write import synthesize

    root = root or Path("data") / f"city-{size}-{seed}"
    synthesize(root, size, seed)
    click.echo(root)


@main.command()
@dataset_options
def index(dataset: str, root: str | None, version: str | None, stores: Path) -> None:
    """Build or extend a data set's index and check it against the files."""
    from pipeline.index import validate

    place = _find(dataset, root, version, stores)
    built = _index(place, fresh=True)
    problems = validate(built, place.root)
    for line in problems:
        click.echo(line)
    click.echo(
        f"{place.folder / 'index.parquet'}: {len(built)} frames, {len(built.scenes())} scenes"
    )


@main.command()
@dataset_options
@frame_options
@click.option("--stage", "stages", multiple=True, help="Only this stage (repeatable) [all four].")
@click.option("--source", default="slic", help="Superpixel source, 'slic' or 'slic@label'.")
@click.option("--shard", default="0/1", help="i/n: every n-th block from the i-th; no scheduler.")
@click.option("--set", "settings", multiple=True, help="key=value of the stage's config.")
@click.option("--rebuild", is_flag=True, help="Replace a store that was made with other settings.")
@click.option("--retry-quarantined", is_flag=True, help="Compute quarantined frames again.")
@click.option("--dry-run", is_flag=True, help="Say what is done and what is to do, and stop.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=600.0, help="Seconds.")
@click.option("--device", default="cpu", help="Torch device of model-based sources.")
def run(
    dataset: str,
    root: str | None,
    version: str | None,
    stores: Path,
    scenes: str | None,
    limit: int | None,
    stages: tuple[str, ...],
    source: str,
    shard: str,
    settings: tuple[str, ...],
    rebuild: bool,
    retry_quarantined: bool,
    dry_run: bool,
    timeout_s: float,
    device: str,
) -> None:
    """Run stage one, or single stages of it; done blocks are skipped."""
    from pipeline.blocks import quarantined_frames
    from pipeline.run import choose_blocks, plan, run_tasks
    from pipeline.stage import StageName, describe_capacity, prepare

    names = [StageName.parse(text) for text in stages or _all_stages()]
    check(
        not settings or len(names) == 1,
        f"--set: must go with one --stage, got {len(names)} stages; add --stage NAME",
    )
    part = _parse_shard(shard)
    check(
        not rebuild or part[1] == 1,
        f"--rebuild: must not go with --shard {shard}, which would replace what other shards make; "
        "rebuild once with --limit 1, then start the shards",
    )
    place = _find(dataset, root, version, stores)
    place_index = _index(place)
    rows = _choose_rows(place_index, scenes, limit)
    click.echo(f"{place.folder}: {describe_capacity(place_index.capacity())}", err=True)
    if not stages and not place_index.cameras:
        click.echo(f"{dataset}: no cameras, so no superpixels and no projections", err=True)
        names = [name for name in names if name.stage in ("frames", "segments")]
    prepared = [
        prepare(
            name,
            source,
            place,
            place_index,
            settings,
            rebuild,
            device,
            dry_run,
        )
        for name in names
    ]
    quarantined = []
    for job, store in prepared:
        if store is None:
            click.echo(f"{job.store_path}: not there yet, {len(rows)} frames to do", err=True)
            continue
        blocks = choose_blocks(store, place_index, rows, part)
        tasks = plan(store, place_index, blocks, retry_quarantined)
        done = len(blocks) - len(tasks)
        click.echo(f"{store.path}: {done} blocks done, {len(tasks)} to do", err=True)
        if not dry_run:
            run_tasks(job, tasks, store, place_index, timeout_s)
        for block in blocks:
            quarantined += [(store.path.name, q) for q in quarantined_frames(store, block)]
    if quarantined:
        _exit_quarantined(quarantined)


@main.command()
@dataset_options
def verify(dataset: str, root: str | None, version: str | None, stores: Path) -> None:
    """Rehash every block; bad ones lose their marker, so that the next run repairs them."""
    from pipeline import blocks
    from pipeline.progress import Progress
    from pipeline.store import open_store

    folder = _find(dataset, root, version, stores, need_root=False).folder
    paths = sorted(folder.glob("*.zarr"))
    check(bool(paths), f"{folder}: must hold stores, got none; run 'make superpixels' first")
    any_bad = False
    for path in paths:
        progress = Progress(f"verify {path.name}", open_store(path).num_blocks, "blocks")
        good, bad = blocks.verify(path, progress.advance)
        for line in bad:
            click.echo(f"{path}: {line}; the next run makes it again")
        missing = open_store(path).num_blocks - good - len(bad)
        click.echo(f"{path}: {good} blocks good, {len(bad)} bad, {missing} not done")
        any_bad = any_bad or bool(bad)
    if any_bad:
        sys.exit(EXIT_USER_ERROR)


@main.command()
@dataset_options
@click.option("--source", default="slic", help="Superpixel source to draw.")
@click.option("--frame", "frame_id", help="Frame id or row number [the first with a successor].")
@click.option("--out", type=Path, help="Folder for the PNG files [<stores>/<dataset>/pictures].")
def pictures(
    dataset: str,
    root: str | None,
    version: str | None,
    stores: Path,
    source: str,
    frame_id: str | None,
    out: Path | None,
) -> None:
    """Draw superpixels and points over the images, and segments from above, as PNG."""
    from pipeline.draw import draw_frame
    from pipeline.index import read_index

    place = _find(dataset, root, version, stores, need_root=False)
    place_index = read_index(place.folder / "index.parquet")
    for path in draw_frame(place.folder, place_index, source, frame_id, out):
        click.echo(path)


@main.command()
@dataset_options
@click.option("--segments", default="segments", help="Store, 'segments' or 'segments@label'.")
def purity(
    dataset: str, root: str | None, version: str | None, stores: Path, segments: str
) -> None:
    """Measure segments against labels: purity, and moving objects that keep their id."""
    from pipeline.index import read_index
    from pipeline.segment_report import report_segments

    folder = _find(dataset, root, version, stores, need_root=False).folder
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


def _all_stages() -> tuple[str, ...]:
    from pipeline.graph import STAGES

    return tuple(STAGES)


def _find(
    dataset: str, root: str | None, version: str | None, stores: Path, need_root: bool = True
) -> "Place":
    """Return where things are; the city is made on the spot where nobody said where it is."""
    from pipeline.index import find_folder
    from pipeline.manifest import find_root, load_manifest, resolve_version
    from pipeline.stage import Place

    manifest = load_manifest(dataset)
    if dataset == CITY:
        from pipeline.synthetic.find import find_city

        city, size_and_seed = find_city(root, version, make=need_root)
        tables = resolve_version(manifest, city, None) if need_root else None
        return Place(manifest, city, tables, stores / f"{dataset}-{size_and_seed}")
    if not need_root and not root:
        return Place(manifest, None, version, find_folder(stores, dataset, version))
    found = find_root(dataset, root)
    resolved = resolve_version(manifest, found, version)
    return Place(
        manifest, found, resolved, stores / (f"{dataset}-{resolved}" if resolved else dataset)
    )


def _index(place: "Place", fresh: bool = False):
    """Return the data set's index, built where it is missing; `fresh` takes in new recordings."""
    from pipeline.index import build_index, read_index, update_index, write_index

    path = place.folder / "index.parquet"
    if path.exists() and not fresh:
        index = read_index(path)
        first = index.frame(0).points_path
        check(
            (place.root / first).exists(),
            f"{place.root}: must be the folder that {path} was built from, got one without "
            f"{first}; correct --root, or choose another --stores",
        )
        return index
    built = build_index(place.manifest.name, place.root, place.version)
    if path.exists():
        built = update_index(_read_or_warn(path) or built, built)
    write_index(path, built)
    return built


def _read_or_warn(path: Path):
    """Return the old index, or None with a warning where it is damaged."""
    from pipeline.index import read_index

    try:
        return read_index(path)
    except UserError as error:
        click.echo(f"replaced: {error}; blocks whose rows moved are made again", err=True)
        return None


def _choose_rows(index, scenes: str | None, limit: int | None) -> np.ndarray:
    rows = np.arange(len(index))
    if scenes:
        wanted = [scene.strip() for scene in scenes.split(",") if scene.strip()]
        unknown = sorted(set(wanted) - set(index.scenes()))
        check(
            not unknown,
            f"--scenes: must be scenes of the index, got '{', '.join(unknown)}'; "
            f"it has {', '.join(index.scenes()[:5])}, ... ({len(index.scenes())} in all)",
        )
        numbers = {index.scenes().index(scene) for scene in wanted}
        rows = np.array([row for row in rows if index.scene_number(int(row)) in numbers], int)
    return rows[:limit] if limit else rows


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
