"""`iotctl devices`: enrol, list, show, rotate, revoke."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker_config.clock import now_ms
from broker_config.errors import RegistryError
from broker_config.policy import Role
from broker_config.registry import DEFAULT_INTERVAL_S, Enrolment
from broker_config.toml_tree import nearest
from cli.context import Invocation, identity, pass_invocation
from cli.durations import Duration
from cli.output import print_json, print_json_lines, print_table, progress, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker_config.registry import Credential, Entry

MAX_CSV_ROWS = 1_000_000
CSV_COLUMNS = ("device_id", "site", "interval")


@click.group(epilog="Example: iotctl devices add kitchen --site home --interval 60")
def devices() -> None:
    """Enrol, list, rotate and revoke devices."""


@devices.command(epilog="Example: iotctl devices add --from devices.csv --json > credentials.jsonl")
@click.argument("device", required=False, metavar="[ID]")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with the columns device_id, and if you like site, interval.",
)
@click.option("--site", default="", help="Where it stands; a tag of every row.")
@click.option(
    "--interval",
    type=Duration(),
    default=DEFAULT_INTERVAL_S,
    show_default=True,
    help="How often it sends a reading; health is measured against it.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="device",
    show_default=True,
    help="ops is for people and dashboards.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a device.")
@pass_invocation
def add(
    invocation: Invocation,
    device: str | None,
    source: Path | None,
    site: str,
    interval: float,
    role: str,
    as_json: bool,
) -> None:
    """Enrol one device, or a whole CSV of them, and print the credentials.

    The secret is shown this once; only its hash is kept.
    """
    if (device is None) == (source is None):
        raise click.UsageError("give either an ID or --from FILE")
    wanted = (
        read_enrolments(source, site=site, interval_s=interval, role=Role(role))
        if source is not None
        else [Enrolment(str(device), site, interval, Role(role))]
    )
    address = invocation.mqtt_address()  # before anything is written: it may be misconfigured
    registry = invocation.registry()
    with progress("enrolling", len(wanted)) as moved:
        issued = registry.add_many(wanted, now_ms=now_ms(), on_progress=moved)
    registry.close()
    _print_credentials(address, issued, as_json=as_json)


@devices.command(name="list", epilog="Example: iotctl devices list --role device --json")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="Only this role.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@pass_invocation
def list_(invocation: Invocation, role: str | None, as_json: bool) -> None:
    """List who is enrolled."""
    registry = invocation.registry()
    entries = registry.entries(Role(role) if role else None)
    registry.close()
    if as_json:
        print_json_lines(_entry_answer(entry) for entry in entries)
        return
    print_table(
        ["DEVICE", "ROLE", "SITE", "INTERVAL", "ENROLLED", "REVOKED"],
        [
            (
                e.name,
                e.role,
                e.site or "-",
                f"{e.interval_s:g} s",
                when(e.created_ms),
                when(e.revoked_ms),
            )
            for e in entries
        ],
        empty="Nobody is enrolled yet: iotctl devices add ID",
    )


@devices.command(epilog="Example: iotctl devices show kitchen")
@click.argument("device", metavar="ID", callback=identity)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_invocation
def show(invocation: Invocation, device: str, as_json: bool) -> None:
    """Show one device."""
    registry = invocation.registry()
    entry = registry.get(device)
    registry.close()
    if entry is None:
        raise RegistryError(f"{device} is not enrolled", "see `iotctl devices list`")
    answer = _entry_answer(entry)
    if as_json:
        print_json(answer)
        return
    times = {"created_ms", "rotated_ms", "revoked_ms"}
    print_table(
        ["FIELD", "VALUE"],
        [
            (key.removesuffix("_ms"), when(value) if key in times else value)
            for key, value in answer.items()
        ],
        empty="",
    )


@devices.command(epilog="Example: iotctl devices rotate kitchen")
@click.argument("device", metavar="ID", callback=identity)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_invocation
def rotate(invocation: Invocation, device: str, as_json: bool) -> None:
    """Give a device a new secret; the old one is refused from now on."""
    address = invocation.mqtt_address()
    registry = invocation.registry()
    issued = registry.rotate(device, now_ms=now_ms())
    registry.close()
    _print_credentials(address, [issued], as_json=as_json)


@devices.command(epilog="Example: iotctl devices revoke kitchen")
@click.argument("device", metavar="ID", callback=identity)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_invocation
def revoke(invocation: Invocation, device: str, as_json: bool) -> None:
    """Refuse a device from its next connection on; what it sent stays."""
    registry = invocation.registry()
    registry.revoke(device, now_ms=now_ms())
    entry = registry.get(device)
    registry.close()
    if as_json and entry is not None:
        print_json(_entry_answer(entry))
    else:
        click.echo(f"{device} is revoked; `iotctl devices rotate {device}` makes it valid again")


def read_enrolments(source: Path, *, site: str, interval_s: float, role: Role) -> list[Enrolment]:
    """The devices of a CSV file.

    Args:
        site, interval_s: for rows that do not say.
        role: of all of them.

    Raises:
        RegistryError: with the line that is wrong.
    """
    wanted = []
    try:
        with source.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            rows.fieldnames = _columns(source, rows.fieldnames or [])
            names: set[str] = set()
            for row in rows:
                where = f"{source} line {rows.line_num}"
                one = _enrolment(row, where, site=site, interval_s=interval_s)
                if one.name in names:
                    raise RegistryError(f"{where}: {one.name} stands in this file twice")
                names.add(one.name)
                wanted.append(one._replace(role=role))
                if len(wanted) > MAX_CSV_ROWS:
                    raise RegistryError(f"{where}: more than {MAX_CSV_ROWS} devices", "split it")
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise RegistryError(f"cannot read {source} ({exc})", "give a CSV file in UTF-8") from None
    if not wanted:
        raise RegistryError(f"{source} has no devices", "one device a line below the header")
    return wanted


def _columns(source: Path, header: Sequence[str]) -> list[str]:
    """The header of a CSV file without the spaces that people put after commas.

    Raises:
        RegistryError: a column is missing or unknown.
    """
    columns = [column.strip() for column in header]
    if "device_id" not in columns:
        raise RegistryError(
            f"{source} has no column device_id", "begin it with device_id,site,interval"
        )
    for column in columns:
        if column not in CSV_COLUMNS:
            raise RegistryError(f"{source}: unknown column {column}{nearest(column, CSV_COLUMNS)}")
    return columns


def _enrolment(row: dict[str, Any], where: str, *, site: str, interval_s: float) -> Enrolment:
    interval = (row.get("interval") or "").strip()
    try:
        seconds = Duration().convert(interval, None, None) if interval else interval_s
    except click.UsageError as exc:
        raise RegistryError(f"{where}: {exc.message}") from None
    name = (row.get("device_id") or "").strip()
    return Enrolment(name, (row.get("site") or site).strip(), seconds)


def _entry_answer(entry: Entry) -> dict[str, Any]:
    answer = entry._asdict()
    del answer["password_hash"]
    return {"device_id": answer.pop("name"), **answer}


def _print_credentials(
    address: tuple[str, int], issued: list[Credential], *, as_json: bool
) -> None:
    host, port = address
    answers = [
        {
            "device_id": one.name,
            "username": one.name,
            "password": one.secret,
            "mqtt": {"host": host, "port": port, "tls": False},
        }
        for one in issued
    ]
    if as_json:
        print_json_lines(answers)
        return
    print_table(
        ["DEVICE", "PASSWORD (shown once)"], [(one.name, one.secret) for one in issued], empty=""
    )
    if len(issued) == 1:
        name = issued[0].name
        click.echo(
            f"\nTry it:\n  mosquitto_pub -h {host} -p {port} -i {name} -u {name} "
            f"-P '{issued[0].secret}' -q 1 \\\n    -t v1/{name}/readings "
            """-m '{"values":{"temperature_c":21.5}}'"""
        )
