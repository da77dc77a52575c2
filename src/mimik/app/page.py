"""The page of `mimik live`, served: live/connections.py brings the camera in and the person out.

Served on the loopback interface, to whoever has the key that is in the address that is opened; on other interfaces to
whoever has the password.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from mimik.app.guard import LOOPBACK, Guard, Visitors, call_headers, check_host
from mimik.app.live.call import Call
from mimik.app.live.connections import Connections, aiortc_needed
from mimik.app.serving import add_call_routes, bound, page_address, served
from mimik.config import extra
from mimik.provenance.credentials import Credentials

CALL_HOST, CALL_PORT = LOOPBACK, 8764


def check_page(host: str, password: str | None) -> None:
    """Raises InputError if a page cannot be served: a host without a password, or a package that is missing."""
    check_host(host, password)
    aiortc_needed()
    with extra("live", "live"):
        import uvicorn  # noqa: F401


@dataclass(frozen=True)
class Page:
    """The page of a call, while it is served."""

    connections: Connections
    address: str  # with the key
    obs_address: str  # of the page without controls


@contextmanager
def served_page(
    call: Call,
    *,
    host: str = CALL_HOST,
    port: int = CALL_PORT,
    password: str | None = None,
    credentials: Credentials | None = None,
) -> Iterator[Page]:
    """Serves the page of a call while the block runs.

    Args:
        call: that runs.
        host, port: where; port 0 takes any that is free.
        password: for every request; needed where host is not loopback.
        credentials: who signs recordings; this computer's own when None.

    Raises:
        InputError: if the host is not possible without a password, the port is taken, or a package is missing.
    """
    check_page(host, password)
    from starlette.applications import Starlette

    visitors, app = Visitors(), Starlette()
    held = Connections(call, host=host, again="start `mimik live` again.", credentials=credentials)
    add_call_routes(app, held, "/", lambda request: request.scope["visitor"], "There is no such page.")
    guard = Guard(
        app,
        host=host,
        password=password,
        realm="mimik live",
        headers=lambda path: call_headers("none"),
        visitors=visitors,
    )
    with bound(host, port) as listening, served(guard, listening, "mimik live"), closing(held):
        address, key = page_address(host, listening), "" if password else f"?key={visitors.key}"
        yield Page(held, f"{address}{key}", f"{address}obs{key}")


def wait(call: Call) -> None:
    """Until the call breaks, whose error is raised then, or the program is interrupted."""
    while call.error is None:
        time.sleep(0.1)
    raise call.error
