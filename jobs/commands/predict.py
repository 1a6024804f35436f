"""`clickparity predict`: score the raw rows of a file with a server."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, input_pattern, schema_name

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.SERVE
HELP = "score the raw rows of a file with a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="of the server's gRPC or REST port"
    )
    parser.add_argument("--name", required=True, metavar="NAME", help="of the served model")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=input_pattern,
        metavar="FILE",
        help="raw rows, scored in this order",
    )
    parser.add_argument(
        "--schema",
        type=schema_name,
        metavar="NAME|FILE",
        help="layout of the files (default: by the ending: CSV with a header, Parquet, JSON Lines)",
    )
    parser.add_argument(
        "--protocol",
        choices=("grpc", "rest"),
        default="grpc",
        help="which API the address belongs to (default: grpc)",
    )
    parser.add_argument("--rows", type=int, help="score only this many rows (default: all)")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="rows a request, at most (default: 512; fewer where the server takes fewer)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Asks for every row, in file order; one probability a line."""
    from jobs.prediction import predict_files

    answers = predict_files(
        arguments.address,
        arguments.name,
        arguments.input,
        protocol=arguments.protocol,
        schema=arguments.schema,
        limit=arguments.rows,
        batch_size=arguments.batch_size,
    )
    probability = answers.probability.tolist()
    result = {
        "rows": len(probability),
        "probability": probability,
        "logit": answers.logit.tolist(),
    }
    return result, "\n".join(f"{p:.9g}" for p in probability)
