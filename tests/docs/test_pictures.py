"""Where two lines of a picture coincide, both are seen."""

from __future__ import annotations

from serving.parity.figures import gap_figure
from serving.parity.outcome import Check, ParityReport


def report(norm: str) -> ParityReport:
    gaps = {"by_batch_size": {"2": 1e-6, "64": 1e-6}}
    names = ("batch, served", "batch, trained")
    checks = tuple(Check(name, "", 1e-6, 1e-5, gaps) for name in names)
    return ParityReport("0", "dcn_v2", norm, "0", False, checks)


def test_a_line_is_wider_than_the_one_drawn_over_it() -> None:
    figure = gap_figure([report("layer"), report("batch")])
    for axis in figure.axes:
        under, over = (line for line in axis.get_lines() if line.get_marker() == "o")
        assert under.get_linewidth() > over.get_linewidth() + 1
        assert under.get_markersize() > over.get_markersize() + 2


def test_a_single_line_is_thin() -> None:
    for axis in gap_figure([report("layer")]).axes:
        (line,) = (line for line in axis.get_lines() if line.get_marker() == "o")
        assert line.get_linewidth() < 2
