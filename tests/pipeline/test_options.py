from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from pipeline.options import gathered


@dataclass(frozen=True)
class Size:
    height: int
    width: int


SIZE = gathered(
    "size",
    Size,
    click.option("--height", type=int, default=2),
    click.option("--width", type=int, default=3),
)


@click.command()
@SIZE
@click.option("--name", default="it")
def area(size: Size, name: str) -> None:
    """Print an area."""
    click.echo(f"{name}: {size.height * size.width}")


@click.command()
@SIZE
def height(size: Size) -> None:
    """Print a height."""
    click.echo(size.height)


def test_options_come_as_one_value_beside_others():
    done = CliRunner().invoke(area, ["--width", "5", "--name", "box"])
    assert (done.exit_code, done.output) == (0, "box: 10\n")
    assert CliRunner().invoke(height, ["--height", "7"]).output == "7\n"


def test_help_lists_them_in_order_and_an_unknown_one_is_refused():
    text = CliRunner().invoke(area, ["--help"]).output
    assert text.index("--height") < text.index("--width") < text.index("--name")
    assert "Print an area." in text
    done = CliRunner().invoke(height, ["--depth", "1"])
    assert done.exit_code == 2 and "No such option" in done.output


def test_a_field_without_an_option_is_found_when_the_command_is_made():
    with pytest.raises(TypeError, match=r"Size: .* got none for \['width'\]"):
        gathered("size", Size, click.option("--height"))(lambda size: None)
