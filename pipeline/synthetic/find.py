"""Where the city is: given, or made on the spot so that `make demo` needs no data."""

import os
from pathlib import Path

import orjson

from pipeline.errors import UserError, check
from pipeline.synthetic.write import SIZES, synthesize

DEFAULT = "demo"


def find_city(root: str | None, version: str | None, make: bool) -> tuple[Path, str]:
    """Return the city's folder and its name for the stores, 'demo' or 'full-7'.

    Args:
        root: folder of a city that `synthesize` made; else SYNTHETIC_ROOT; else data/city-...
        version: SIZE or SIZE-SEED, where no folder is given.
        make: write the city where its default folder is missing.

    Raises:
        UserError: the folder is no city of ours, or the version is no size and seed.
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
        return folder, _name(city["size"], city["seed"])
    size, _, seed = (version or DEFAULT).partition("-")
    check(
        size in SIZES and (not seed or seed.isdecimal()),
        f"data set 'synthetic': version must be SIZE or SIZE-SEED with SIZE one of "
        f"{', '.join(SIZES)}, got '{version}'; for example full-1",
    )
    folder = Path(given) if given else Path("data") / f"city-{size}-{int(seed or 0)}"
    if make:
        synthesize(folder, size, int(seed or 0))
    return folder, _name(size, int(seed or 0))


def _name(size: str, seed: int) -> str:
    return f"{size}-{seed}" if seed else size
