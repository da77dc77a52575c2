"""The page of `mimik live`, served: live/connections.py brings the camera in and the person out.

Served on the loopback interface, to whoever has the key that is in the address that is opened; on other interfaces to
whoever has the password.
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
    """Raises InputError if a page cannot be served: a host without a password, or a package that is missing."""
    check_host(where.host, where.password)
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
def served_page(call: Call, where: Serving, *, credentials: Credentials | None = None) -> Iterator[Page]:
    """Serves the page of a running call while the block runs.

    Args: credentials: who signs recordings; this computer's own when None.

    Raises:
        InputError: if the host is not possible without a password, the port is taken, or a package is missing.
    """
    check_page(where)
    from starlette.applications import Starlette

    visitors, app = Visitors(), Starlette()
    held = Connections(call, host=where.host, again="start `mimik live` again.", credentials=credentials)
    add_call_routes(app, held, "/", lambda request: request.scope["visitor"], "There is no such page.")
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
    """Until the call breaks, whose error is raised then, or the program is interrupted."""
    while call.error is None:
        time.sleep(0.1)
    raise call.error
