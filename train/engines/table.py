"""The sparse engines by name; what each module offers is in contract.py."""

from pipeline.tables import Table

ENGINES = Table(
    kind="engine",
    modules={"minkowski": "train.engines.minkowski", "native": "train.engines.native"},
    install={"minkowski": "run 'make env' to compile it, or use ENGINE=native"},
)


def default_engine(device: str = "cpu") -> str:
    """Return 'minkowski', the reference, where it imports and runs on the device, else 'native'."""
    if ENGINES.problem("minkowski") is None and ENGINES.load("minkowski").runs_on(device):
        return "minkowski"
    return "native"
