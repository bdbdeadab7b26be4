"""Commands of stage three: `python -m eval COMMAND --help`."""

from pathlib import Path

from train.__main__ import store_options  # first: it sets OpenMP's threads before torch comes in

import click  # isort: skip

from pipeline.errors import run_main  # isort: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage three: a checkpoint in, numbers and a page out."""


def start_options(command):
    """Add the options that say what a downstream network starts from."""
    options = [
        click.option(
            "--run",
            "run_name",
            help="Run [<recipe>-<data set>-<source> or random-<recipe>-<data set>].",
        ),
        click.option("--source", default="slic", help="Superpixel source, names the default run."),
        click.option("--recipe", default="seal", help="Recipe: default run, and a random network."),
        click.option(
            "--init",
            type=click.Choice(["checkpoint", "random"]),
            default="checkpoint",
            help="Start from the run's last checkpoint or from random weights.",
        ),
        click.option("--checkpoint", type=Path, help="Another checkpoint than the run's."),
        click.option("--seeds", default="0", help="Comma-separated; mean and std are reported."),
        click.option("--set", "settings", multiple=True, help="key=value of the protocol."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@store_options
@start_options
@click.option("--split", default="train", help="Labels to train the last layer on.")
def probe(**options) -> None:
    """Linear probe: train only the last layer on all labels, report validation mIoU."""
    _measure("linear", **options)


@main.command()
@store_options
@start_options
@click.option("--split", default="1pct", help="Labels: 1pct 5pct 10pct 25pct half full.")
def fewshot(**options) -> None:
    """Fine-tune every layer on a share of the labels, report validation mIoU."""
    _measure("few_shot", **options)


@main.command()
@store_options
@click.option("--out", type=Path, help="HTML file [<runs>/report.html].")
@click.option("--frames", default=2, help="Validation frames to draw per probed run.")
def report(
    dataset: str,
    version: str | None,
    stores: Path,
    runs: Path,
    engine: str | None,
    device: str,
    out: Path | None,
    frames: int,
) -> None:
    """Write one self-contained HTML page of every result, curve and picture."""
    from eval.report import write_report
    from eval.scenes import draw_scenes
    from pipeline.index import find_folder
    from train.engines.table import default_engine
    from train.stores import StorePaths, Stores
    from train.trainer import set_threads

    place = find_folder(stores, dataset, version)
    set_threads()
    opened = Stores(StorePaths(place))
    scenes = draw_scenes(runs, opened, frames, engine or default_engine())
    about = f"Data: {place} ({len(opened.index)} keyframes). Runs: {runs}."
    path = out or runs / "report.html"
    click.echo(write_report(path, runs, place / "pictures", scenes, about).resolve())


def _measure(
    protocol: str,
    dataset: str,
    version: str | None,
    stores: Path,
    runs: Path,
    engine: str | None,
    device: str,
    run_name: str | None,
    source: str,
    recipe: str,
    init: str,
    checkpoint: Path | None,
    seeds: str,
    settings: tuple[str, ...],
    split: str,
) -> None:
    from eval.protocol import find_start, parse_seeds, run_protocol
    from pipeline.errors import check
    from pipeline.index import find_folder
    from train.engines.table import default_engine
    from train.stores import StorePaths, Stores
    from train.trainer import Machine, set_threads

    check(
        not (checkpoint and (init == "random" or run_name is None)),
        "--checkpoint: must come with --run NAME (the folder for its results) and without "
        f"--init random, got --run {run_name} --init {init}",
    )
    set_threads()
    place = find_folder(stores, dataset, version)
    name = (
        f"random-{recipe}-{place.name}" if init == "random" else f"{recipe}-{place.name}-{source}"
    )
    run = runs / (run_name or name)
    start = find_start(run, init, recipe, checkpoint)
    opened = Stores(StorePaths(place, source))
    machine = Machine(engine or default_engine(), device)
    result, path = run_protocol(
        run, opened, protocol, split, start, settings, parse_seeds(seeds), machine
    )
    spread = f" +- {result.std:.2f}" if len(result.miou) > 1 else ""
    click.echo(
        f"{result.protocol} on {result.dataset} {result.split}, from {result.init}: "
        f"mIoU {result.mean:.2f}{spread} % over {len(result.classes) - result.num_absent} classes "
        f"({result.num_absent} absent)"
    )
    click.echo(path)


if __name__ == "__main__":
    run_main(main)
