"""Commands of stage three: `python -m eval COMMAND --help`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# first: it sets OpenMP's threads before torch comes in
from train.__main__ import Setup, device_option, setup_options

import click  # isort: skip

from pipeline.errors import check, run_main, unknown_name  # isort: skip
from pipeline.options import gathered  # isort: skip

if TYPE_CHECKING:
    from eval.predictor import Predictor
    from train.stores import Stores


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage three: a checkpoint in, numbers and a page out."""


@dataclass(frozen=True)
class Task:
    """What a downstream network starts from, and how it is trained."""

    run_name: str | None
    source: str
    recipe: str
    init: str
    checkpoint: Path | None
    seeds: str
    taxonomy: str
    settings: tuple[str, ...]

    def measure(self, setup: Setup, protocol: str, split: str) -> None:
        """Train on a split, print the validation mIoU and the path of the result."""
        from eval.protocol import parse_seeds, run_protocol
        from eval.start import find_start
        from train.stores import StorePaths, Stores

        check(
            not (self.checkpoint and (self.init != "checkpoint" or self.run_name is None)),
            "--checkpoint: must come with --run NAME (the folder for its results) and without "
            f"--init random or teacher, got --run {self.run_name} --init {self.init}",
        )
        place, seeds = setup.place(), parse_seeds(self.seeds)
        name = f"{self.recipe}-{place.name}"
        name = f"{name}-{self.source}" if self.init == "checkpoint" else f"{self.init}-{name}"
        run = setup.runs / (self.run_name or name)
        start = find_start(run, self.init, self.recipe, self.checkpoint)
        paths = StorePaths(place, self.source, taxonomy=self.taxonomy, intensity=start.intensity)
        result, path = run_protocol(
            run, Stores(paths), protocol, split, start, self.settings, seeds, setup.machine()
        )
        spread = f" +- {result.std:.2f}" if len(result.miou) > 1 else ""
        click.echo(
            f"{result.protocol} on {result.dataset} {result.split}, from {result.init}: "
            f"mIoU {result.mean:.2f}{spread} % over {len(result.classes) - result.num_absent} "
            f"classes ({result.num_absent} absent){_seen(result)}"
        )
        click.echo(path)


task_options = gathered(
    "task",
    Task,
    click.option(
        "--run",
        "run_name",
        help="Run [<recipe>-<data set>-<source> or random|teacher-<recipe>-<data set>].",
    ),
    click.option("--source", default="slic", help="Superpixel source, names the default run."),
    click.option("--recipe", default="seal", help="Recipe: default run, and a random network."),
    click.option(
        "--init",
        type=click.Choice(["checkpoint", "random", "teacher"]),
        default="checkpoint",
        help="The run's last checkpoint, random weights, or the image teacher itself.",
    ),
    click.option("--checkpoint", type=Path, help="Another than the run's: ours, SLidR's, Seal's."),
    click.option("--seeds", default="0", help="Comma-separated; mean and std are reported."),
    click.option("--taxonomy", default="", help="Other classes of the data set's manifest."),
    click.option("--set", "settings", multiple=True, help="key=value of the protocol."),
)


@main.command()
@setup_options
@task_options
@click.option("--split", default="train", help="Labels to train the last layer on.")
def probe(setup: Setup, task: Task, split: str) -> None:
    """Linear probe: train only the last layer on all labels, report validation mIoU."""
    task.measure(setup, "linear", split)


@main.command()
@setup_options
@task_options
@click.option("--split", default="1pct", help="Labels: 1pct 5pct 10pct 25pct half full.")
def fewshot(setup: Setup, task: Task, split: str) -> None:
    """Fine-tune every layer on a share of the labels, report validation mIoU."""
    task.measure(setup, "few_shot", split)


@main.command()
@setup_options
@task_options
@click.option("--split", default="1pct", help="Labels; all other training frames go without.")
def semi(setup: Setup, task: Task, split: str) -> None:
    """Fine-tune on a share of the labels and the other scans (mean teacher, LaserMix)."""
    task.measure(setup, "semi_supervised", split)


@main.command()
@setup_options
@click.option("--inits", default="random", help="Comma-separated: random, runs, files of weights.")
@click.option(
    "--splits",
    default="lp,1pct",
    help="Comma-separated: lp = probe on all labels, 1pct = fewshot, semi-1pct = semi.",
)
@click.option("--seeds", default="0,1,2", help="Comma-separated.")
@click.option("--recipe", default="seal", help="Network of a random start.")
@click.option("--set", "settings", multiple=True, help="key=value of every protocol.")
@click.option("--shard", default="0/1", help="i/n: every n-th cell from the i-th; no scheduler.")
@click.option("--print", "only_print", is_flag=True, help="Only print what is there.")
def table(
    setup: Setup,
    inits: str,
    splits: str,
    seeds: str,
    recipe: str,
    settings: tuple[str, ...],
    shard: str,
    only_print: bool,
) -> None:
    """Measure data set x init x labels x seed, skipping what is done; print the table."""
    from eval.matrix import Matrix, markdown, parse_shard, run_matrix
    from eval.protocol import parse_seeds

    words = [tuple(w.strip() for w in text.split(",") if w.strip()) for text in (inits, splits)]
    matrix = Matrix(tuple(setup.places()), *words, parse_seeds(seeds))
    machine, part = setup.machine(), parse_shard(shard)
    if not only_print:
        for line in run_matrix(matrix, setup.runs, recipe, settings, part, machine):
            click.echo(line, err=True)
    click.echo(markdown(matrix, setup.runs))


@main.command()
@setup_options
@click.option("--out", type=Path, help="HTML file [<runs>/report.html].")
@click.option(
    "--frames", type=click.IntRange(0), default=2, help="Validation frames to draw per probed run."
)
@click.option(
    "--near",
    nargs=2,
    type=float,
    metavar="X Y",
    help="Similarities are to the point nearest to here, m in the LiDAR frame [a car, ...].",
)
def report(
    setup: Setup,
    out: Path | None,
    frames: int,
    near: tuple[float, float] | None,
) -> None:
    """Write one self-contained HTML page of every result, curve and picture."""
    from eval.report import check_runs, write_report
    from eval.scenes import draw_scenes
    from train.stores import StorePaths, Stores

    place, runs = setup.place(), setup.runs
    check(
        near is None or all(map(math.isfinite, near)),
        f"--near: must be two finite numbers, X Y in m, got {near}; leave it out for a car",
    )
    check_runs(runs)  # before a minute of drawing
    opened = Stores(StorePaths(place))
    scenes = draw_scenes(runs, opened, frames, setup.machine(), near)
    about = f"Data: {place} ({len(opened.index)} keyframes). Runs: {runs}."
    path = out or runs / "report.html"
    click.echo(write_report(path, runs, place / "pictures", scenes, about).resolve())


@main.command()
@setup_options
def compare(setup: Setup) -> None:
    """Print every result below the runs beside the published numbers, which are marked."""
    from eval.comparison import BRACKETS
    from eval.comparison import compare as side_by_side
    from eval.report import comparison_rows
    from eval.seeds import all_results

    results = all_results(setup.runs)
    check(bool(results), f"{setup.runs}: must hold results, got none; run 'make probe' first")
    columns = side_by_side(results)
    for place in dict.fromkeys(column.place for column in columns):
        head, rows, _ = comparison_rows([column for column in columns if column.place == place])
        click.echo(f"{place}\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        for row in rows:
            click.echo(f"| {' | '.join(row)} |")
    if any(column.published for column in columns):
        click.echo(BRACKETS)


@main.command()
@click.argument("dataset")
@click.option("--version", help="Which of its stores, where there are several.")
@click.option("--stores", type=Path, default=Path("stores"), help="Folder for all stores.")
@click.option("--kind", "kinds", multiple=True, help="fog, snow, ... (repeatable) [all eight].")
@click.option("--severity", "severities", multiple=True, help="light, moderate, heavy [all].")
@click.option("--out", type=Path, help="Folder to write [data/<stores>-C].")
@click.option("--split", default="val", help="Frames to corrupt.")
@click.option("--limit", type=click.IntRange(1), help="At most this many frames.")
@click.option("--set", "settings", multiple=True, help="KIND.SEVERITY.KEY=VALUE of a level.")
def corrupt(
    dataset: str,
    version: str | None,
    stores: Path,
    kinds: tuple[str, ...],
    severities: tuple[str, ...],
    out: Path | None,
    split: str,
    limit: int | None,
    settings: tuple[str, ...],
) -> None:
    """Write corrupted frames of DATASET in the layout of nuScenes-C."""
    from eval.corrupted import write_corrupted
    from eval.corruptions.table import CORRUPTIONS, SEVERITIES, check_settings
    from pipeline.index import find_folder
    from train.rows import choose_rows
    from train.stores import StorePaths, Stores

    for severity in severities:
        if severity not in SEVERITIES:
            raise unknown_name("--severity", severity, SEVERITIES)
    for kind in kinds:
        CORRUPTIONS.load(kind)
    check_settings(settings)
    opened = Stores(StorePaths(find_folder(stores, dataset, version)))
    rows = choose_rows(opened, split, ("frames",))[:limit]
    folder = out or Path("data") / f"{opened.paths.folder.name}-C"
    for kind in kinds or CORRUPTIONS:
        for severity in severities or SEVERITIES:
            click.echo(write_corrupted(opened, rows, kind, severity, folder, settings))


@dataclass(frozen=True)
class Measured:
    """Which measured network is used."""

    run_name: str | None
    source: str
    recipe: str
    protocol: str
    split: str
    checkpoint: Path | None

    def load(self, setup: Setup, stores: "Stores") -> "Predictor":
        """Return it, on its device; measured on these stores unless a checkpoint is named.

        Raises:
            UserError: it was not measured, or not kept.
        """
        from eval.predictor import load_predictor

        place = stores.paths.folder.name
        run = setup.runs / (self.run_name or f"{self.recipe}-{place}-{self.source}")
        name = f"{self.protocol}-{stores.index.dataset}-{self.split}.pt"
        path = self.checkpoint or run / "results" / name
        made_by = {"linear": "probe", "few_shot": "fewshot", "semi_supervised": "semi"}
        if self.protocol not in made_by:
            raise unknown_name("--protocol", self.protocol, made_by)
        command = made_by[self.protocol]
        command += "" if self.protocol == "linear" else f" SPLIT={self.split}"
        check(
            path.is_file(),
            f"{path}: checkpoint must exist, got nothing; run 'make {command}' first",
        )
        predictor = load_predictor(path, setup.machine().engine)
        predictor.network.to(setup.device)
        return predictor


measured_options = gathered(
    "measured",
    Measured,
    click.option("--run", "run_name", help="Run [<recipe>-<data set>-<source>]."),
    click.option("--source", default="slic", help="Superpixel source, names the default run."),
    click.option("--recipe", default="seal", help="Recipe, names the default run."),
    click.option("--protocol", default="linear", help="linear, few_shot or semi_supervised."),
    click.option("--split", default="train", help="Labels it was trained on."),
    click.option("--checkpoint", type=Path, help="Another .pt file in results/ of some run."),
)


@main.command()
@setup_options
@measured_options
@click.option("--limit", type=click.IntRange(1), help="At most this many frames, evenly spaced.")
@click.option("--corrupted", help="Data set with the scans of nuScenes-C [made on the fly].")
@click.option("--set", "settings", multiple=True, help="KIND.SEVERITY.KEY=VALUE of a level.")
def robustness(
    setup: Setup,
    limit: int | None,
    corrupted: str | None,
    settings: tuple[str, ...],
    measured: Measured,
) -> None:
    """Evaluate a probed or fine-tuned network on clean and 24 corrupted versions; mCE and mRR."""
    from eval.robustness import describe, run_robustness
    from pipeline.index import find_folder
    from train.stores import StorePaths, Stores

    opened = Stores(StorePaths(setup.place()))
    predictor = measured.load(setup, opened)
    read = Stores(StorePaths(find_folder(setup.stores, corrupted, None))) if corrupted else None
    found, written = run_robustness(predictor, opened, limit, setup.device, read, settings)
    click.echo("\n".join(describe(found)))
    click.echo(written)


@main.command()
@click.option("--checkpoint", type=Path, required=True, help="A .pt file in results/ of a run.")
@click.option("--input", "source", type=Path, required=True, help="Scan, or folder of scans.")
@click.option("--out", type=Path, default=Path("predictions"), help="Folder for the classes.")
@click.option("--poses", type=Path, help="T_world_lidar per scan, 12 numbers a line.")
@click.option("--neighbors", type=click.IntRange(0), default=0, help="Scans either side that vote.")
@click.option("--engine", help="[minkowski if it is built]")
@device_option
def predict(
    checkpoint: Path,
    source: Path,
    out: Path,
    poses: Path | None,
    neighbors: int,
    engine: str | None,
    device: str,
) -> None:
    """Write the class of every point of .bin, .npy, .pcd or .ply scans."""
    from eval.predict import find_scans, predict_files
    from eval.predictor import load_predictor
    from train.engines.table import default_engine
    from train.trainer import set_threads

    set_threads()
    predictor = load_predictor(checkpoint, engine or default_engine(device))
    scans = find_scans(source)
    speed = predict_files(predictor, scans, out, poses, neighbors, device)
    rate = speed.num_scans / speed.seconds
    click.echo(
        f"{speed.num_scans} scans, {speed.num_points} points in {speed.seconds:.1f} s: "
        f"{rate:.2f} scans/s (reading and writing included)"
    )
    click.echo(out)


@main.command()
@setup_options
@measured_options
@click.option(
    "--frames", type=click.IntRange(1), default=4, help="Validation frames, evenly spaced."
)
@click.option("--out", type=Path, help="Folder [<runs>/<run>/view].")
def view(
    setup: Setup,
    frames: int,
    out: Path | None,
    measured: Measured,
) -> None:
    """Write predictions of validation frames as PNG, PLY and a rerun recording; no display."""
    from eval.scenes import view_frames
    from train.stores import StorePaths, Stores

    opened = Stores(StorePaths(setup.place()))
    predictor = measured.load(setup, opened)
    folder = out or predictor.path.parents[1] / "view"
    written, hint = view_frames(predictor, opened, frames, folder)
    for file in written:
        click.echo(file)
    if hint:
        click.echo(f"no recording: {hint}", err=True)


def _seen(result) -> str:
    if result.miou_seen is None:
        return ""
    return f"; {sum(result.miou_seen) / len(result.miou_seen):.2f} % over points a camera sees"


if __name__ == "__main__":
    run_main(main)
