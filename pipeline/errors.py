"""Errors that a user can act on: one line saying where, what, and what to do.

Every command turns a UserError into that line on standard error and a non-zero exit code; anything
else that escapes is a defect of ours and keeps its traceback.
"""

import difflib
import errno
import sys
from collections.abc import Iterable

import click

EXIT_USER_ERROR = 2
EXIT_QUARANTINED = 3


class UserError(ValueError):
    """Something the user gave cannot be used; the message is the whole story."""


def check(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless `condition` holds (at borders: files, flags)."""
    if not condition:
        raise UserError(message)


def unknown_name(where: str, name: str, valid: Iterable[str]) -> UserError:
    """Return the error for a name that a table lacks, with the nearest and all valid names."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"{where}: unknown name '{name}'; {hint}choose one of: {', '.join(valid)}")


def run_main(command: click.Group) -> None:
    """Run a command group; what a user can mend becomes one line and exit code 2."""
    try:
        command(standalone_mode=False)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full, make room" if full else "mend that"
        what = f"{error.filename or 'file system'}: {error.strerror or error}"
        click.echo(f"error: {what}; {advice} and run again", err=True)
        sys.exit(EXIT_USER_ERROR)
    except (KeyboardInterrupt, click.exceptions.Abort):  # click turns the one into the other
        click.echo("interrupted; done blocks stay done, run the same command to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
