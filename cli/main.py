"""`iotctl`: global options, dispatch to one file a verb, and the one error boundary."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from broker_config.errors import IotError
from cli.context import Invocation
from cli.output import print_error
from cli.parent_death import end_with_parent

VERBS = {
    "up": "Start the whole system: broker, bridge, and a demo fleet if you like.",
    "status": "Is data arriving, and if not, why?",
    "readings": "Readings of one device, from whichever database is configured.",
    "devices": "Enrol, list, rotate and revoke devices.",
    "quarantine": "What was refused, and why.",
    "simulate": "Simulated devices over real MQTT.",
    "broker": "The broker alone.",
    "bridge": "The bridge alone.",
    "completion": "Print the completion script for your shell.",
}
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_INTERNAL = 3


class Verbs(click.Group):
    """Imports a verb's file only when that verb is used, so that `iotctl --help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, most used first."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, or None when there is none of that name."""
        del ctx
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"cli.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and with the nearest verb for a typing error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from broker_config.toml_tree import nearest

            raise click.UsageError(
                f"{exc.message.rstrip('.')}{nearest(args[0], VERBS)}", ctx
            ) from None


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: iotctl up --demo 10",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=True, dir_okay=True),
    envvar="IOT_HOME",
    default=Path("iot-home"),
    show_default=True,
    show_envvar=True,
    help="Folder that holds everything of one system.",
)
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
@click.option("--supervised", is_flag=True, hidden=True, help="End when the parent process ends.")
@click.version_option(package_name="iot-ingest", prog_name="iotctl")
@click.pass_context
def cli(ctx: click.Context, home: Path, debug: bool, supervised: bool) -> None:
    """Sensor readings from MQTT devices into a database; none is lost, each refusal has a name."""
    if not str(home) or home == Path():
        raise click.UsageError("--home (or IOT_HOME) is empty or the current folder itself")
    if supervised:
        end_with_parent()
    ctx.obj = Invocation(home=home.absolute(), debug=debug, environment=os.environ)


def main() -> None:
    """Run `iotctl` and exit: 0 fine, 1 bad answer, 2 usage, 3 unreachable, 130 interrupted."""
    try:
        code = cli.main(standalone_mode=False, prog_name="iotctl")
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except click.ClickException as exc:
        code = _usage(exc)
    except Exception as exc:  # noqa: BLE001 -- the boundary: people get one line, not a traceback
        if "--debug" in sys.argv:
            traceback.print_exc()
        code = _failed(exc)
    sys.exit(code)


def _usage(exc: click.ClickException) -> int:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
        return EXIT_USAGE
    path = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "iotctl"
    print_error(f"{exc.format_message().rstrip('.')}: see `{path} --help`")
    return EXIT_USAGE


def _failed(exc: Exception) -> int:
    if isinstance(exc, IotError):
        print_error(str(exc))
        return exc.exit_code
    print_error(f"internal error ({type(exc).__name__}: {exc}): run again with --debug, report it")
    return EXIT_INTERNAL


if __name__ == "__main__":
    main()
