"""`onehost lb`: virtual services as the operator of a load balancer sees them, with their real servers."""

from __future__ import annotations

from typing import Any

import click

from ...models import nouns
from .groups import Command
from .noun_group import noun_group
from .output import emit, table
from .session import current


def _show(name: str | None) -> None:
    session = current()
    client = session.client
    services = [client.get("virtual_service", name)] if name else client.list("virtual_service")
    nodes = client.status()["nodes"]
    found = [_service(each, client.get("virtual_service", each["name"])["nodes"], nodes) for each in services]

    def words() -> None:
        if not found:
            click.echo("no virtual services")
        for number, service in enumerate(found):
            spec = service["spec"]
            address = f"[{spec['address']}]" if ":" in spec["address"] else spec["address"]
            about = f"{address}:{spec['port']} {spec['scheduler']}, check {spec['check']}"
            about += f", persistence {spec['persistence_seconds']} s; directors: {service['directors'] or 'none'}"
            click.echo(("\n" if number else "") + f"{service['name']}  {about}")
            columns = ("real server", "address", "weight", "traffic", "state", "open")
            rows = [
                (r["node"], r["address"], r["weight"], r["traffic"], r["state"], r["open"])
                for r in service["real_servers"]
            ]
            table(session, columns, rows, "no node has its role")

    emit(session, found, words)


def _service(service: dict[str, Any], placed: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    real = [
        {"node": node["name"], "address": node["address"], "state": node["state"], "traffic": node["traffic"],
         # A node that is cordoned or drained takes no new traffic, whatever its weight.
         "weight": node["weight"] if node["traffic"] == "active" else 0, "open": node["open"]}
        for node in nodes
        if service["spec"]["role"] in node["roles"]
    ]  # fmt: skip
    directors = ", ".join(f"{each['node']} ({each['state']})" for each in placed)
    return {"name": service["name"], "spec": service["spec"], "directors": directors, "real_servers": real}


lb = noun_group(nouns.noun("virtual_service"))
lb.name, lb.help, lb.example = "lb", "Virtual services with their real servers.", "lb show"
lb.add_command(
    Command(
        "show",
        callback=_show,
        params=[click.Argument(["name"], required=False)],
        help="Each virtual service with its real servers: weight, traffic, state.",
        example="lb show",
    )
)
