"""`driftloop broker`: a local Kafka for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_console import JsonFlag, print_json, state_of

if TYPE_CHECKING:
    from .streams.broker import BrokerAddress, LocalBroker

app = typer.Typer(
    no_args_is_help=True, help="Run a local Kafka broker on loopback (needs Java 17+, and Maven or an unpacked Kafka)."
)

DataDir = Annotated[Path | None, typer.Option(help="Where its data lives (default: the user's state directory).")]


def _broker(data_dir: Path | None, port: int | None = None, kafka_home: Path | None = None) -> LocalBroker:
    from .streams.broker import BrokerConfig, LocalBroker

    return LocalBroker(BrokerConfig(data_dir, port, kafka_home))


def _tell(address: BrokerAddress, *, json: bool) -> None:
    if json:
        where = None if address.data_dir is None else str(address.data_dir)
        told: dict[str, Any] = {"running": True, "bootstrap_servers": address.bootstrap_servers}
        print_json(told | {"pid": address.pid, "data_dir": where})
    else:
        typer.echo(address.bootstrap_servers)


@app.command()
def start(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="(default: the last one used, else a free one)")] = None,
    data_dir: DataDir = None,
    kafka_home: Annotated[Path | None, typer.Option(help="An unpacked Kafka (default: brought by Maven once).")] = None,
    json: JsonFlag = False,
) -> None:
    """Start the broker and wait until it answers; prints its address.

    Example: export DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS=$(driftloop broker start)
    """
    address = _broker(data_dir, port, kafka_home).start()
    state_of(context).say(f"broker runs, pid {address.pid}, data in {address.data_dir}")
    _tell(address, json=json)


@app.command()
def stop(context: typer.Context, data_dir: DataDir = None, json: JsonFlag = False) -> None:
    """Stop the broker and wait until it is gone; its data stays.

    Example: driftloop broker stop
    """
    stopped = _broker(data_dir).stop()
    if json:
        print_json({"stopped": stopped})
    else:
        state_of(context).say("broker stopped" if stopped else "no broker ran")


@app.command()
def status(data_dir: DataDir = None, json: JsonFlag = False) -> None:
    """Print the address of the broker that runs. Exit code 3 if none does.

    Example: driftloop broker status --json
    """
    from .schemas.errors import NotFound

    address = _broker(data_dir).status()
    if address is None:
        if json:
            print_json({"running": False})
        raise NotFound("no local broker runs (driftloop broker start)")
    _tell(address, json=json)
