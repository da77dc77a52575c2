"""Serves the page of `mimik live`; live/connections.py receives the camera and sends the output.

On the loopback interface, access requires the key in the opened URL; on other interfaces, the password.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from mimik.app.guard import Guard, Visitors, call_headers, check_host
from mimik.app.live.call import Call
from mimik.app.live.connections import Connections, aiortc_needed
from mimik.app.serving import Serving, add_call_routes, bound, page_address, served
from mimik.config import extra
from mimik.provenance.credentials import Credentials


def check_page(where: Serving) -> None:
    """Raises InputError if a page cannot be served: no password for this host, or a missing package."""
    check_host(where.host, where.password)
    aiortc_needed()
    with extra("live", "live"):
        import uvicorn  # noqa: F401


@dataclass(frozen=True)
class Page:
    """A served page of a call."""

    connections: Connections
    address: str  # includes the key
    obs_address: str  # of the page without controls


@contextmanager
def served_page(call: Call, where: Serving, *, credentials: Credentials | None = None) -> Iterator[Page]:
    """Serve the page of a running call while the block runs.

    Args: credentials: for signing recordings; None: this computer's own.

    Raises:
        InputError: if the host requires a password, the port is taken, or a package is missing.
    """
    check_page(where)
    from starlette.applications import Starlette

    visitors, app = Visitors(), Starlette()
    held = Connections(call, host=where.host, again="start `mimik live` again.", credentials=credentials)
    add_call_routes(app, held, "/", lambda request: request.scope["visitor"], "No such page.")
    guard = Guard(
        app,
        host=where.host,
        password=where.password,
        realm="mimik live",
        headers=lambda path: call_headers("none"),
        visitors=visitors,
    )
    with bound(where) as listening, served(guard, listening, "mimik live"), closing(held):
        address, key = page_address(where, listening), "" if where.password else f"?key={visitors.key}"
        yield Page(held, f"{address}{key}", f"{address}obs{key}")


def wait(call: Call) -> None:
    """Block until the call fails, and raise its error, or until the program is interrupted."""
    while call.error is None:
        time.sleep(0.1)
    raise call.error
