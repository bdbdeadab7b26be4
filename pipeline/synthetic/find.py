"""Where the city is: given, or made on the spot so that `make demo` needs no data."""

import os
from pathlib import Path

import orjson

from pipeline.errors import UserError, check
from pipeline.synthetic.lidars import DEFAULT as DEFAULT_LIDAR
from pipeline.synthetic.lidars import LIDARS
from pipeline.synthetic.write import SIZES, synthesize

DEFAULT = "demo"


def find_city(root: str | None, version: str | None, make: bool) -> tuple[Path, str]:
    """Return the city's folder and its name for the stores, 'demo' or 'full-7'.

    Args:
        root: folder of a city that `synthesize` made; else SYNTHETIC_ROOT; else data/city-...
        version: SIZE, SIZE-SEED or SIZE-SEED-LIDAR, where no folder is given.
        make: write the city where its default folder is missing.

    Raises:
        UserError: the folder is no city of ours, or the version is no size, seed and LiDAR.
    """
    given = root or os.environ.get("SYNTHETIC_ROOT")
    if given and version is None:
        folder = Path(given).expanduser()
        try:
            city = orjson.loads((folder / "city.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
            raise UserError(
                f"data set 'synthetic': --root must be a folder that synthesize made, got "
                f"'{given}' without a readable city.json; run 'make synthetic ROOT=FOLDER'"
            ) from None
        return folder, city_name(city["size"], city["seed"], city.get("lidar", DEFAULT_LIDAR))
    size, _, rest = (version or DEFAULT).partition("-")
    number, _, lidar = rest.partition("-")
    lidar = lidar or DEFAULT_LIDAR
    check(
        size in SIZES and (not rest or number.isdecimal()) and lidar in LIDARS,
        f"data set 'synthetic': version must be SIZE, SIZE-SEED or SIZE-SEED-LIDAR with SIZE one "
        f"of {', '.join(SIZES)} and LIDAR one of {', '.join(LIDARS)}, got '{version}'; for example "
        "full-1",
    )
    seed = int(number or 0)
    folder = Path(given) if given else default_folder(size, seed, lidar)
    if make:
        synthesize(folder, size, seed, lidar)
    return folder, city_name(size, seed, lidar)


def default_folder(size: str, seed: int, lidar: str) -> Path:
    """Return where a city is made when nobody says where."""
    return Path("data") / f"city-{size}-{seed}{_suffix(lidar)}"


def city_name(size: str, seed: int, lidar: str) -> str:
    """Return the version of a city: `full`, `full-7`, `full-0-beams64`."""
    return f"{size}-{seed}{_suffix(lidar)}" if seed or _suffix(lidar) else size


def _suffix(lidar: str) -> str:
    return "" if lidar == DEFAULT_LIDAR else f"-{lidar}"
