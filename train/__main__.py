"""Commands of stage two: `python -m train COMMAND --help`."""

import os
import signal
import sys

# Before torch: OpenMP's own default is one thread, BLAS and torch keep all cores (set_threads).
os.environ["OMP_NUM_THREADS"] = "1"
# Processes that torchrun starts on one machine share its cores.
_CORES = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
os.environ.setdefault("MKL_NUM_THREADS", str(max(1, _CORES)))
# Threads that wait asleep: spinning ones starve each other as soon as anything else runs (a step of
# a small network on two busy cores: 5 to 28 s spinning, 0.7 s asleep).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

import click  # noqa: E402

from pipeline.errors import run_main  # noqa: E402
from pipeline.options import gathered  # noqa: E402

if TYPE_CHECKING:
    from train.trainer import Machine

ENGINES = ("minkowski", "native")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage two: stores in, a pretrained network out."""


def _check_device(context, option, name: str) -> str:
    from train.device import check_device

    return check_device(name)


device_option = click.option(
    "--device", default="cpu", callback=_check_device, help="Torch device."
)


@dataclass(frozen=True)
class Setup:
    """Which stores and runs, and what computes."""

    dataset: str
    version: str | None
    stores: Path
    runs: Path
    engine: str | None
    device: str

    def place(self) -> Path:
        """Return the data set's folder of stores."""
        from pipeline.index import find_folder

        return find_folder(self.stores, self.dataset, self.version)

    def places(self) -> list[Path]:
        """Return the folders of stores where the data set is 'a,b,c'."""
        from pipeline.errors import check
        from pipeline.index import find_folder

        names = [name.strip() for name in self.dataset.split(",") if name.strip()]
        check(
            len(names) == len(set(names)) and (self.version is None or len(names) == 1),
            "--dataset: must name each data set once, and --version only one, got "
            f"{self.dataset} and {self.version}; write a version into the name, like "
            "nuscenes-v1.0-mini",
        )
        return [find_folder(self.stores, name, self.version) for name in names]

    def machine(self, **rest) -> "Machine":
        """Return what computes, and give torch its cores."""
        from train.engines.table import default_engine
        from train.trainer import Machine, set_threads

        set_threads()
        return Machine(self.engine or default_engine(self.device), self.device, **rest)


# for train and eval
setup_options = gathered(
    "setup",
    Setup,
    click.option(
        "--dataset", default="synthetic", help="Name of a data set; pretrain, table: a,b."
    ),
    click.option("--version", help="Which of its stores, where there are several."),
    click.option("--stores", type=Path, default=Path("stores"), help="Folder for all stores."),
    click.option("--runs", type=Path, default=Path("runs"), help="Folder for all runs."),
    click.option("--engine", type=click.Choice(ENGINES), help="[minkowski if it is built]"),
    device_option,
)


@dataclass(frozen=True)
class Wanted:
    """Which pretraining, of what."""

    source: str
    segments: str
    recipe: str
    run_name: str | None
    settings: tuple[str, ...]
    intensity: str

    def named(self, place: str) -> str:
        """Return the run's name on the stores of a place."""
        return self.run_name or f"{self.recipe}-{place}-{self.source}"


wanted_options = gathered(
    "wanted",
    Wanted,
    click.option("--source", default="slic", help="Superpixel source, 'slic' or 'slic@label'."),
    click.option("--segments", default="segments", help="Store, 'segments' or 'segments@label'."),
    click.option("--recipe", default="seal", help="Published run, see train/recipes.py."),
    click.option("--run", "run_name", help="Name of the run [<recipe>-<data set>-<source>]."),
    click.option("--set", "settings", multiple=True, help="key=value of the recipe."),
    click.option(
        "--intensity", default="slidr", help="As SLidR feeds it, or 'normalized' to 0..1."
    ),
)


@main.command()
@setup_options
@wanted_options
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    help="Loader processes; 0 reads in the trainer itself.",
)
@click.option("--save-every", default=1000, help="Steps between checkpoints; each epoch's end too.")
@click.option("--knn-every", default=10, help="Epochs between quick looks (kNN); 0 = none.")
def pretrain(
    setup: Setup,
    wanted: Wanted,
    workers: int,
    save_every: int,
    knn_every: int,
) -> None:
    """Pretrain a network; a finished run is a no-op, an unfinished one goes on.

    Under torchrun, one process per GPU. SIGTERM saves and ends with exit code 143.
    """
    from pipeline.config import override
    from train.recipes import load_recipe
    from train.stop import Stopped
    from train.stores import StorePaths
    from train.trainer import pretrain as run

    config, places = override(load_recipe(wanted.recipe), wanted.settings), setup.places()
    folder = setup.runs / wanted.named("+".join(place.name for place in places))
    machine = setup.machine(num_workers=workers, save_every=save_every, knn_every=knn_every)
    what = {"source": wanted.source, "segments": wanted.segments, "intensity": wanted.intensity}
    paths = tuple(StorePaths(place, **what) for place in places)
    try:
        done = run(folder, paths, config, machine)
    except Stopped as stopped:
        click.echo(f"{stopped}; the same command goes on", err=True)
        sys.exit(128 + signal.SIGTERM)
    if os.environ.get("RANK", "0") == "0":
        click.echo(done)


@main.command()
@click.option("--dataset", default="nuscenes", help="Name of a data set, or a,b.")
@click.option("--version", help="Which of its stores, where there are several.")
@click.option("--engine", type=click.Choice(ENGINES), help="[minkowski if it is built for CUDA]")
@wanted_options
@click.option("--stores", type=Path, default=Path("stores"), help="Folder for all stores.")
@click.option("--runs", type=Path, default=Path("runs"), help="Folder for all runs.")
@click.option("--nodes", default=1, help="Machines.")
@click.option("--gpus", default=1, help="GPUs of each.")
@click.option("--batch-per-gpu", type=int, help="Sets batch_size [the recipe's, shared].")
@click.option("--workers", default=8, help="Loader processes per GPU.")
@click.option("--hours", default=24, help="Of the job.")
def sbatch(
    dataset: str,
    version: str | None,
    engine: str | None,
    wanted: Wanted,
    stores: Path,
    runs: Path,
    nodes: int,
    gpus: int,
    batch_per_gpu: int | None,
    workers: int,
    hours: int,
) -> None:
    """Print a script for sbatch, with the batch and the learning rate it amounts to."""
    from pipeline.config import override
    from train.job_script import Request, job_script
    from train.recipes import load_recipe

    request, settings = Request(nodes, gpus, workers, hours), wanted.settings
    if batch_per_gpu is not None:
        settings = (*settings, f"batch_size={batch_per_gpu * nodes * gpus}")
    config = override(load_recipe(wanted.recipe), settings)
    options = [
        ("--dataset", dataset),
        ("--version", version),
        ("--source", wanted.source),
        ("--segments", wanted.segments),
        ("--recipe", wanted.recipe),
        ("--run", wanted.run_name),
        ("--intensity", wanted.intensity),
        ("--engine", engine),
        ("--device", "cuda"),
        ("--stores", stores),
        ("--runs", runs),
        ("--workers", workers),
        *(("--set", setting) for setting in settings),
    ]
    words = [word for name, value in options if value is not None for word in (name, str(value))]
    click.echo(job_script(config, words, request, wanted.named(dataset)), nl=False)


@main.command()
@click.argument("recipe")
@click.option("--set", "settings", multiple=True, help="key=value of the recipe.")
def show(recipe: str, settings: tuple[str, ...]) -> None:
    """Print the complete config of a recipe, line by line as --set takes it."""
    from pipeline.config import override, to_plain
    from train.recipes import load_recipe

    for line in _lines(to_plain(override(load_recipe(recipe), settings))):
        click.echo(line)


def _lines(plain: dict, where: str = ""):
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _lines(value, f"{where}{key}.")
        else:
            yield f"{where}{key}={','.join(map(str, value)) if isinstance(value, list) else value}"


@main.command()
@click.argument("source", type=Path)
@click.argument("target", type=Path)
def convert(source: Path, target: Path) -> None:
    """Write a pretrained network as TARGET.safetensors with a card, or as SLidR's TARGET.pt.

    SOURCE: a run's checkpoint.pt, SLidR's, ST-SLidR's or Seal's published file, or .safetensors.
    """
    from train.convert import convert as run

    for path in run(source, target):
        click.echo(path)


@main.command()
@click.option("--city", "cities", type=Path, multiple=True, required=True, help="Folder of a city.")
@click.option("--out", type=Path, default=Path("weights/tiny_teacher.safetensors"), help="File.")
@click.option("--seed", default=0, help="Of crops, colors and first centers.")
def teacher(cities: tuple[Path, ...], out: Path, seed: int) -> None:
    """Set the tiny teacher's weights from the pictures of made-up cities, without labels."""
    import torch

    from train.teacher_training import train_teacher

    torch.set_num_threads(1)  # sums, and so the file's bytes, must not depend on the core count
    paths = sorted(path for city in cities for path in city.glob("samples/CAM_*/*.jpg"))
    click.echo(f"{len(paths)} images; {train_teacher(paths, out, seed)}")
    click.echo(out)


if __name__ == "__main__":
    run_main(main)
