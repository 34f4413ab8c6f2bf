"""``doorward``: the command. Each verb's module is small; what is heavy is imported when a verb runs."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from doorward import __version__
from doorward.cli import common
from doorward.cli.attack import attack_command
from doorward.cli.audit import audit_command
from doorward.cli.cleanse import cleanse_command
from doorward.cli.data import app as data_app
from doorward.cli.demo import demo_command
from doorward.cli.export import export_command
from doorward.cli.invert import invert_command
from doorward.cli.methods import methods_command
from doorward.cli.repair import repair_command
from doorward.cli.report import report_command
from doorward.cli.reproduce import app as reproduce_app
from doorward.cli.score import score_command
from doorward.cli.screen import screen_command
from doorward.cli.train import train_command
from doorward.cli.verify import verify_command
from doorward.core import memory
from doorward.core.errors import DoorwardError


class _Commands(TyperGroup):
    """Makes the options of ``certify`` when it is called: its request imports pydantic, which ``--help`` spares."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:1] == ["certify"]:
            from doorward.cli.certify import certify_command

            alone = typer.Typer(add_completion=False)
            alone.command("certify")(certify_command)
            self.commands["certify"] = typer.main.get_command(alone)
        return super().resolve_command(ctx, args)


def _certify() -> None:
    """Prove how many changed pixels and labels a training procedure withstands."""


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audit image-classification training sets and models for backdoors.\n\n"
    "Exit codes: 0 nothing found, 1 findings, 2 error, 3 undecided, 130 interrupted.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"doorward {__version__}")
        raise typer.Exit


_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what torch and NumPy read when imported


def _threads(count: int | None) -> None:
    """Set the threads of all numerical work of the command, before anything of it runs."""
    if count is None:
        return
    os.environ |= dict.fromkeys(_POOLS, str(count))
    if "torch" in sys.modules:  # a call from Python, where it is too late for the environment
        sys.modules["torch"].set_num_threads(count)


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=1024,
            metavar="N",
            callback=_threads,
            help="Threads of one process; by default one per core. Sums are split by thread: a training is repeated "
            "exactly with the same number.",
        ),
    ] = None,
    limit_memory: Annotated[
        str,
        typer.Option(
            "--limit-memory", metavar="SIZE", help="Take no more memory than this, such as 4G, in each process."
        ),
    ] = "",
) -> None:
    if limit_memory and not memory.limit_memory(memory.parse_size(limit_memory, "--limit-memory")):
        raise DoorwardError(f"--limit-memory {limit_memory}: this system has no such limit; expected no such option")


app.command("audit")(audit_command)
app.add_typer(data_app, name="data", help="Image sets: list, fetch, describe.")
app.command("attack")(attack_command)
app.command("train")(train_command)
app.command("cleanse")(cleanse_command)
app.command("export")(export_command)
app.command("score")(score_command)
app.command("invert")(invert_command)
app.command("repair")(repair_command)
app.command("screen")(screen_command)
app.command("certify")(_certify)
app.command("verify")(verify_command)
app.command("report")(report_command)
app.add_typer(reproduce_app, name="reproduce", help="Published tables and figures, each with one command.")
app.command("demo")(demo_command)
app.command("methods")(methods_command)


def _after_interrupt() -> str:
    """What there is to go on from."""
    if {"demo", "reproduce"} & set(sys.argv[1:6]):  # every stage is a run; --threads N and the like may stand before
        return "the same command goes on from what is finished"
    runs = sys.modules.get("doorward.core.runs")  # not imported: nothing was begun
    return str(runs.after_interrupt()) if runs else "nothing of this call is kept"


def main() -> None:
    """Run the command line; mistakes of the user end with one line and exit code 2."""
    # Threads that wait must not spin: on a machine with anything else to do, spinning made training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except DoorwardError as error:
        code = common.fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = common.INTERRUPTED
    except OSError as error:
        code = common.fail(f"{error.filename or 'disk'}: {error.strerror or f'{error} (is the disk full?)'}")
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # typer's usage errors
        if memory.out_of_memory(error):
            code = common.fail("more memory was needed than there is, or than --limit-memory allows; expected enough")
        elif format_message is None:
            traceback.print_exc()
            code = common.fail("this is a mistake of doorward, not yours; please report it with the lines above")
        else:
            told = str(format_message())  # none where no arguments were given: the help has been shown
            code = common.fail(told) if told else common.WENT_WRONG
    if code == common.INTERRUPTED:
        common.fail(f"interrupted; {_after_interrupt()}")
    sys.exit(code if isinstance(code, int) else 0)
