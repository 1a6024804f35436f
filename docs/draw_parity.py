"""Draws docs/parity.png anew from a demo's runs.

python -m docs.draw_parity demo_out
"""

from __future__ import annotations

import sys
from pathlib import Path

from models.run_directory import RunDirectory
from serving.parity.figures import gap_figure
from serving.parity.outcome import ParityReport

__all__ = ["main"]


def main(demo: Path) -> Path:
    """Writes the picture of a demo's two runs, layer norm under batch norm; returns its path."""
    reports = [
        RunDirectory.open(demo / "runs" / norm).read_report("parity.json", ParityReport)
        for norm in ("layer", "batch")
    ]
    path = Path(__file__).with_name("parity.png")
    gap_figure(reports).savefig(path, dpi=130, bbox_inches="tight")
    return path


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
