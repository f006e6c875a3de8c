"""Running the study's server: address, port, start and end."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mtadiffusion.errors import UserError
from mtadiffusion.study.server import create_app
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, Study

if TYPE_CHECKING:
    import uvicorn


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 takes a free one.

    Raises:
        UserError: the port is taken or not allowed, or the machine has no such address.
    """
    if not 0 <= port <= 65535:
        raise UserError("--port", "must be a whole number between 0 and 65535", port)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise UserError("--host", f"must be an address of this machine ({error.strerror})", host) from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        rule = f"cannot be listened at ({error.strerror})"
        raise UserError("--port", rule, f"{host}:{port}", "choose another; 0 takes a free one") from None
    return bound


def server_of(root: Path) -> uvicorn.Server:
    """A server of the study in a folder, not yet running.

    Raises:
        UserError: no study, or pictures that were lost or changed.
    """
    import uvicorn

    study = Study.open(root)
    study.check_pictures()
    app = create_app(study, Store(root / ANSWERS))
    # An access log would hold the tokens.
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
