"""The sparse engines by name; what each module offers is in contract.py."""

from pipeline.tables import Table

ENGINES = Table(
    kind="engine",
    modules={"minkowski": "train.engines.minkowski", "native": "train.engines.native"},
    install={"minkowski": "run 'make env' to compile it, or use ENGINE=native"},
)


def default_engine() -> str:
    """Return 'minkowski', the reference, where it imports, else 'native'."""
    return "minkowski" if ENGINES.problem("minkowski") is None else "native"
