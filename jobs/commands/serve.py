"""`clickparity serve`: serves published models until it is told to stop."""

from __future__ import annotations

import argparse
from typing import Any

from serving.server.local_server import serve

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Blocks until SIGTERM or SIGINT."""
    serve(
        arguments.models,
        arguments.grpc_port,
        arguments.rest_port,
        host=arguments.host,
        name=arguments.name,
    )
    return {"stopped": True}, "stopped"
