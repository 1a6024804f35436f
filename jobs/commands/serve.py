"""`clickparity serve`: serve published models (TF Serving if on PATH, else for development)."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.SERVE
HELP = "serve published models (TF Serving if on PATH, else for development)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_models_argument(parser)
    parser.add_argument("--name", help="serve only this model (default: all)")
    parser.add_argument(
        "--host",
        help="address to listen on (default: 127.0.0.1; TF Serving: all, it cannot be given one)",
    )
    parser.add_argument(
        "--grpc-port",
        type=int,
        default=8500,
        help="0: any free port, not for TF Serving (default: 8500)",
    )
    parser.add_argument(
        "--rest-port",
        type=int,
        default=8501,
        help="0: any free port, not for TF Serving (default: 8501)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Blocks until SIGTERM or SIGINT."""
    from serving.server.local_server import serve

    serve(
        arguments.models,
        arguments.grpc_port,
        arguments.rest_port,
        host=arguments.host,
        name=arguments.name,
    )
    return {"stopped": True}, "stopped"
