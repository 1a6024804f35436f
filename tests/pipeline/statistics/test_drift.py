"""The drift gate: distances by hand, thresholds, chance, and what the operator is told."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import ConfigError, GateError
from pipeline.statistics.drift import (
    DriftConfig,
    DriftReport,
    compare_statistics,
    jensen_shannon,
    population_stability_index,
)
from pipeline.statistics.drift_distances import binned
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary
from serving.gates import drift_gate

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(any)


def statistics(
    *,
    rows: int = 10_000,
    label_rate: float | None = 0.02,
    price: np.ndarray | None = None,
    site: dict[str, int] | None = None,
    missing_price: int = 0,
    missing_site: int = 0,
    histogram: bool = True,
    schema: str = "aaaa",
) -> FeatureStatistics:
    """Statistics as statistics.json holds them, of one numeric and one text feature."""
    values = np.arange(100.0) if price is None else price
    counts = {"a": 6000, "b": 4000} if site is None else site
    edges, bins = np.unique(values, return_counts=True)
    points = np.arange(21) / 20
    quantiles = np.quantile(values, points, method="inverted_cdf").tolist() if len(values) else []
    numeric: dict[str, Any] = {
        "count": len(values) and rows - missing_price,
        "missing": missing_price,
        "quantiles": quantiles,
    }
    if histogram:
        numeric["histogram"] = {"edges": edges.tolist(), "counts": bins.tolist()}
    numbers = {
        "schema": "shop",
        "schema_fingerprint": schema,
        "training_rows": rows,
        "label_rate": label_rate,
        "numeric": {"price": numeric},
        "text": {"site": {"present": rows - missing_site, "missing": missing_site}},
    }
    vocabulary = Vocabulary(
        pa.array([v.encode() for v in counts], pa.binary()),
        np.array(list(counts.values()), np.int64),
        len(counts),
    )
    return FeatureStatistics(numbers, {"site": vocabulary})


def measures(report: DriftReport) -> list[tuple[str, str]]:
    return [(f.feature, f.measure) for f in report.findings]


# ------------------------------------------------------------ distances


def test_distances_by_hand() -> None:
    p, q = np.array([50, 50]), np.array([25, 75])
    # (.25 - .5) ln .5 + (.75 - .5) ln 1.5 = .25 * .693147 + .25 * .405465
    assert population_stability_index(p, q) == pytest.approx(0.274653, abs=1e-6)
    # H(.375, .625) - (H(.5, .5) + H(.25, .75)) / 2 = .954434 - (1 + .811278) / 2
    assert jensen_shannon(p, q) == pytest.approx(0.048795, abs=1e-6)


def test_an_empty_bin_is_far_but_finite() -> None:
    p, q = np.array([10, 0]), np.array([5, 5])
    # (.5 - 1) ln .5 + (.5 - .0001) ln 5000 = .346574 + .4999 * 8.517193
    assert population_stability_index(p, q) == pytest.approx(4.604318, abs=1e-5)
    assert jensen_shannon(np.array([1, 0]), np.array([0, 1])) == 1.0


def test_nothing_on_a_side_is_nan_not_an_error() -> None:
    for distance in (population_stability_index, jensen_shannon):
        assert math.isnan(distance(np.zeros(3), np.ones(3)))
        assert math.isnan(distance(np.ones(3), np.zeros(3)))


@given(p=COUNTS, scale=st.integers(1, 50))
def test_the_same_shares_are_at_distance_zero(p: list[int], scale: int) -> None:
    same = np.array(p) * scale
    assert population_stability_index(np.array(p), same) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(np.array(p), same) == pytest.approx(0, abs=1e-12)


@given(p=COUNTS, q=COUNTS)
def test_distances_are_symmetric_and_in_range(p: list[int], q: list[int]) -> None:
    size = min(len(p), len(q))
    a, b = np.array(p[:size]), np.array(q[:size])
    if not a.sum() or not b.sum():
        return
    assert population_stability_index(a, b) >= 0
    assert population_stability_index(a, b) == pytest.approx(population_stability_index(b, a))
    assert 0 <= jensen_shannon(a, b) <= 1
    assert jensen_shannon(a, b) == pytest.approx(jensen_shannon(b, a), abs=1e-12)


# ------------------------------------------------------------ the comparison


@pytest.mark.parametrize("histogram", [True, False])
def test_identical_statistics_measure_exactly_zero(histogram: bool) -> None:
    same = statistics(histogram=histogram)
    report = compare_statistics(same, same)
    for feature in report.features:
        assert feature.psi == feature.jensen_shannon == 0.0
    assert report.features[1].unseen_share == 0.0
    assert report.label_rate_z == 0.0
    assert report.findings == ()
    drift_gate(report).raise_if_refused()


def test_numeric_drift_by_hand() -> None:
    # Two values, half and half before, a quarter and three quarters today.
    before = statistics(price=np.array([1.0, 2.0]))
    today = statistics(price=np.array([1.0, 2.0, 2.0, 2.0]))
    price = compare_statistics(today, before).features[0]
    assert price.psi == pytest.approx(0.274653, abs=1e-6)
    assert price.jensen_shannon == pytest.approx(0.048795, abs=1e-6)


def test_text_drift_by_hand_with_the_other_bin() -> None:
    # 10,000 rows; what the vocabulary does not hold is one bin: (.5, .3, .2) and (.2, .3, .5).
    before = statistics(site={"a": 5000, "b": 3000})
    today = statistics(site={"a": 2000, "b": 3000})
    site = compare_statistics(today, before).features[1]
    assert site.psi == pytest.approx(2 * 0.3 * math.log(2.5), abs=1e-9)
    assert site.unseen_share == 0.0
    # chi^2 of 2 degrees of freedom at .9999 is -2 ln .0001 = 18.42068; (1/n + 1/m) = 2e-4
    assert site.psi_by_chance == pytest.approx(18.42068 * 2e-4, rel=1e-5)


def test_rare_values_share_a_bin() -> None:
    before = statistics(site={"a": 9000, **{f"old{i}": 4 for i in range(250)}})
    today = statistics(site={"a": 9000, **{f"new{i}": 4 for i in range(250)}})
    site = compare_statistics(today, before).features[1]
    assert site.psi == 0.0  # 500 values that chance may have drawn: one tenth, as before
    assert site.unseen_share == 0.1


def test_only_the_most_frequent_values_get_a_bin() -> None:
    before = statistics(site={"a": 5000, "b": 3000, "c": 2000})
    today = statistics(site={"a": 5000, "b": 2000, "c": 3000})
    one_bin = compare_statistics(today, before, DriftConfig(values=1)).features[1]
    assert one_bin.psi == 0.0  # b and c are in the other bin, whose share did not change
    assert compare_statistics(today, before).features[1].psi == pytest.approx(0.2 * math.log(1.5))


def test_unseen_ids_are_weighed_by_todays_counts() -> None:
    before = statistics(site={"a": 6000, "b": 4000})
    today = statistics(site={"b": 5000, "new": 3000, "newer": 2000})
    report = compare_statistics(today, before, DriftConfig(max_psi=None))
    assert report.features[1].unseen_share == 0.5
    assert measures(report) == [("site", "unseen_share")]
    # The other way round, `a` is the unseen one.
    back = compare_statistics(before, today, DriftConfig(max_psi=None))
    assert back.features[1].unseen_share == 0.6


def test_label_rate_needs_both_size_and_significance() -> None:
    before = statistics(label_rate=0.02)
    report = compare_statistics(statistics(label_rate=0.03), before)
    # pooled .025; sqrt(.025 * .975 * 2 / 10000) = .00220794; .01 / .00220794
    assert report.label_rate_z == pytest.approx(4.52911, abs=1e-5)
    assert [str(f) for f in report.findings] == ["label label_rate_change 0.5 (allowed 0.25)"]
    few = compare_statistics(
        statistics(label_rate=0.03, rows=500), statistics(label_rate=0.02, rows=500)
    )
    assert measures(few) == []  # the same change, but chance
    small = compare_statistics(
        statistics(label_rate=0.0205, rows=10**8), statistics(label_rate=0.02, rows=10**8)
    )
    assert small.label_rate_z > 4
    assert measures(small) == []  # certain, but small


def test_a_falling_label_rate_is_drift_as_a_rising_one_is() -> None:
    report = compare_statistics(statistics(label_rate=0.01), statistics(label_rate=0.02))
    # pooled .015; sqrt(.015 * .985 * 2 / 10000) = .00171901; -.01 / .00171901
    assert report.label_rate_z == pytest.approx(-5.81730, abs=1e-5)
    assert [str(f) for f in report.findings] == ["label label_rate_change -0.5 (allowed 0.25)"]
    assert report.findings[0].excess == 2.0  # by this the worst come first


def test_a_falling_missing_rate_is_drift_too() -> None:
    report = compare_statistics(statistics(), statistics(missing_price=900))
    assert measures(report) == [("price", "missing_rate_change")]
    assert report.findings[0].value == pytest.approx(-0.09)


def test_the_pooled_rate_weighs_each_run_by_its_rows() -> None:
    # (.03 * 1,000 + .02 * 9,000) / 10,000 = .021; sqrt(.021 * .979 * (1/1000 + 1/9000)) = .00477948
    report = compare_statistics(
        statistics(label_rate=0.03, rows=1000), statistics(label_rate=0.02, rows=9000)
    )
    assert report.label_rate_z == pytest.approx(2.09228, abs=1e-5)
    back = compare_statistics(
        statistics(label_rate=0.02, rows=9000), statistics(label_rate=0.03, rows=1000)
    )
    assert back.label_rate_z == pytest.approx(-2.09228, abs=1e-5)


def test_equal_rates_of_zero_or_one_are_no_standard_errors_apart() -> None:
    for rate in (0.0, 1.0):
        assert compare_statistics(*[statistics(label_rate=rate)] * 2).label_rate_z == 0.0


def test_the_missing_rate_of_a_text_feature_is_a_share_of_all_rows() -> None:
    report = compare_statistics(statistics(missing_site=900), statistics())
    assert measures(report) == [("site", "missing_rate_change")]
    assert report.findings[0].value == pytest.approx(0.09)
    assert [f.missing_rate for f in report.features] == [0.0, pytest.approx(0.09)]


@pytest.mark.parametrize("count,apart", [(9, False), (10, True)])
def test_a_value_has_a_bin_of_its_own_from_ten_occurrences_on(count: int, apart: bool) -> None:
    today, before = (
        statistics(rows=990 + count, site={"a": 990, name: count}) for name in ("r1", "r2")
    )
    psi = compare_statistics(today, before).features[1].psi
    assert psi is not None and (psi > 0) is apart


def test_bins_are_equally_full_in_the_mixture() -> None:
    def histogram(edges: list[float], counts: list[int]) -> dict[str, Any]:
        return {"histogram": {"edges": edges, "counts": counts}}

    even = histogram(list(range(100)), [3] * 100)
    for side in binned(even, even, 10):
        assert side.tolist() == [30] * 10
    # one value against a hundred: each run is half of the mixture
    before, today = binned(histogram([1.0], [1]), histogram([2.0], [100]), 2)
    assert (before.tolist(), today.tolist()) == ([1, 0], [0, 100])


def test_of_one_value_alone_chance_explains_nothing() -> None:
    one = statistics(price=np.zeros(100))
    found = compare_statistics(one, one).features[0]
    assert (found.psi, found.psi_by_chance, found.jensen_shannon) == (0.0, 0.0, 0.0)


def test_rows_without_weight_have_no_label_rate_to_compare() -> None:
    pair = statistics(label_rate=None), statistics()
    for today, before in (pair, pair[::-1]):
        report = compare_statistics(today, before)
        assert (report.label_rate_z, measures(report)) == (0.0, [])


def test_a_feature_that_was_dropped_may_be_ignored_by_name() -> None:
    today, before = statistics(schema="bbbb"), statistics()
    del today.numbers["numeric"]["price"]
    for name in ("price", "site"):
        config = DriftConfig(allow_schema_change=True, ignore=(name,))
        assert measures(compare_statistics(today, before, config)) == []


def test_a_feature_that_one_run_alone_has_is_shown_and_no_drift() -> None:
    today, before = statistics(), statistics()
    del before.numbers["numeric"]["price"]
    del today.numbers["text"]["site"]
    report = compare_statistics(today, before)
    found = [(f.feature, f.missing_rate, f.missing_rate_before, f.psi) for f in report.features]
    assert found == [("price", 0.0, None, None), ("site", None, 0.0, None)]
    assert measures(report) == []


@pytest.mark.parametrize(
    "name,least,most",
    [
        ("max_label_rate_change", None, 10.0),
        ("max_missing_rate_change", None, 1.0),
        ("max_psi", None, 10.0),
        ("max_jensen_shannon", None, 1.0),
        ("max_unseen_share", 0.0, 1.0),
        ("min_z", 0.0, 100.0),
        ("bins", 2, 1000),
        ("values", 1, 100_000),
    ],
)
def test_the_range_of_each_threshold(name: str, least: float | None, most: float) -> None:
    for value in (most, *([] if least is None else [least])):
        assert getattr(DriftConfig(**{name: value}), name) == value
    refused = [0.0, -0.1] if least is None else [least - 1]
    refused += [most + 1] if most in (1.0, 1000, 100_000) else []
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            DriftConfig.model_validate({name: value})


def test_missing_rate() -> None:
    today = statistics(missing_price=900, missing_site=400)
    report = compare_statistics(today, statistics())
    assert measures(report) == [("price", "missing_rate_change")]
    assert report.findings[0].value == pytest.approx(0.09)


def test_shifted_quantiles_are_seen_without_a_histogram() -> None:
    rng = np.random.default_rng(0)
    before = statistics(price=rng.normal(size=10_000), histogram=False)
    alike = statistics(price=rng.normal(size=10_000), histogram=False)
    shifted = statistics(price=rng.normal(size=10_000) + 1, histogram=False)
    assert measures(compare_statistics(alike, before)) == []
    assert measures(compare_statistics(shifted, before)) == [("price", "psi")]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), rows=st.integers(50, 3000))
def test_samples_of_one_distribution_do_not_drift(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)

    def sample() -> FeatureStatistics:
        sites, counts = np.unique(rng.zipf(1.5, rows).clip(max=500), return_counts=True)
        return statistics(
            rows=rows,
            price=rng.exponential(size=rows).round(1),
            site={str(s): int(c) for s, c in zip(sites, counts, strict=True)},
        )

    report = compare_statistics(sample(), sample(), DriftConfig(max_unseen_share=None))
    assert measures(report) == []


@pytest.mark.parametrize("broken", ["price", "site"])
def test_a_feature_that_broke_entirely(broken: str) -> None:
    if broken == "price":
        today = statistics(price=np.zeros(0), missing_price=10_000)
    else:
        today = statistics(site={}, missing_site=10_000)
    report = compare_statistics(today, statistics())
    assert measures(report) == [(broken, "missing_rate_change")]
    assert next(f for f in report.features if f.feature == broken).psi is None
    DriftReport.table_rows(report)


def test_no_rows_at_all_divides_by_nothing() -> None:
    nothing = statistics(rows=0, label_rate=None, price=np.zeros(0), site={})
    for pair in ((nothing, statistics()), (statistics(), nothing), (nothing, nothing)):
        report = compare_statistics(*pair)
        assert report.label_rate_z == 0.0
        json.dumps(report.to_json())


def test_a_label_rate_of_zero_before() -> None:
    report = compare_statistics(statistics(label_rate=0.1), statistics(label_rate=0.0))
    assert report.findings[0].value == math.inf


# ------------------------------------------------------------ the gate


def test_the_error_names_the_worst_first_with_remedy() -> None:
    today = statistics(label_rate=0.03, site={"x": 10_000}, missing_price=600)
    report = compare_statistics(today, statistics())
    assert measures(report)[0] == ("site", "psi")
    with pytest.raises(GateError) as caught:
        drift_gate(report, shown=2).raise_if_refused()
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "site psi" in message
    assert "(allowed 0.25)" in message
    assert "2 more" in message
    assert "drift.ignore" in message
    assert message.index("psi") < message.index("unseen_share")


def test_ignored_features_may_drift_and_unknown_ones_are_refused() -> None:
    today = statistics(site={"x": 10_000})
    assert measures(compare_statistics(today, statistics(), DriftConfig(ignore=("site",)))) == []
    with pytest.raises(ConfigError, match="Did you mean 'site'"):
        compare_statistics(today, statistics(), DriftConfig(ignore=("sites",)))


def test_schemas_must_be_the_same_unless_allowed() -> None:
    today, before = statistics(schema="bbbb"), statistics()
    with pytest.raises(ConfigError, match=r"bbbb.*aaaa.*allow_schema_change"):
        compare_statistics(today, before)
    del today.numbers["numeric"]["price"]
    report = compare_statistics(today, before, DriftConfig(allow_schema_change=True))
    assert [(f.feature, f.missing_rate, f.missing_rate_before) for f in report.features] == [
        ("price", None, 0.0),
        ("site", 0.0, 0.0),
    ]
    assert report.findings == ()


def test_a_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'max_psi'"):
        DriftConfig.model_validate({"max_spi": 0.1})


# ------------------------------------------------------------ real statistics


def test_two_samples_of_the_synthetic_world(tmp_path: Path) -> None:
    from pipeline.input_listing import list_inputs
    from pipeline.preprocessing.count_pass import count_chunk
    from pipeline.schema import FeatureSchema
    from pipeline.sources import plan_blocks, read_block
    from pipeline.statistics.feature_statistics import PartialStatistics
    from pipeline.statistics.vocabulary import merge_counts, select_vocabulary

    schema = FeatureSchema.load("criteo")

    def log(name: str, seed: int, shift: int) -> FeatureStatistics:
        rng = np.random.default_rng(seed)
        columns = [rng.integers(0, 2, 4000), *(rng.poisson(3 + shift, 4000) for _ in range(13))]
        columns += [rng.zipf(1.4, 4000).clip(max=400) + shift * 1000 * (i == 3) for i in range(26)]
        path = tmp_path / f"{name}.tsv"
        np.savetxt(path, np.stack(columns, axis=1), fmt="%d", delimiter="\t")
        plan = plan_blocks(schema, list_inputs([str(path)]))
        parts, counts = [], {}  # type: ignore[var-annotated]
        for block in plan.blocks:
            for chunk in read_block(block, plan.schema):
                part, tables = count_chunk(chunk, block.index, plan.schema, None)
                parts.append(part)
                for feature, table in tables.items():
                    counts.setdefault(feature, []).append(table)
        vocabularies = {
            feature: select_vocabulary(merge_counts(tables), min_count=2, max_vocab_size=1000)
            for feature, tables in counts.items()
        }
        made = FeatureStatistics.assemble(plan.schema, PartialStatistics.merge(parts), vocabularies)
        made.save(tmp_path / name)
        return FeatureStatistics.load(tmp_path / name)

    before = log("before", 1, 0)
    assert measures(compare_statistics(log("alike", 2, 0), before)) == []
    drifted = compare_statistics(log("drifted", 3, 2), before)
    over = set(measures(drifted))
    assert {(f"I{i}", "psi") for i in range(1, 14)} <= over
    assert {("C4", "psi"), ("C4", "unseen_share")} <= over
    assert not any(feature in ("C1", "C26") for feature, _ in over)


def test_the_job_prints_the_table_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.commands import drift

    for name, made in (("new", statistics(site={"x": 10_000})), ("old", statistics())):
        for summary in made.numbers["text"].values():
            summary["distinct"] = 2
        made.save(tmp_path / name / "statistics")
        (tmp_path / name / "summary.json").write_text("{}")
        (tmp_path / name / "_SUCCESS").write_text("f")
    config = argparse.Namespace(drift=DriftConfig())
    monkeypatch.setattr("jobs.config.load_run_config", lambda *_: config)
    arguments = argparse.Namespace(
        data=str(tmp_path / "new"), against=str(tmp_path / "old"), config=None, set=[]
    )
    with pytest.raises(GateError, match="site psi"):
        drift.main(arguments)
    shown = capsys.readouterr().err
    assert "psi" in shown
    assert "100.00%" in shown
    arguments.data = arguments.against
    result, text = drift.main(arguments)
    assert result["findings"] == ()
    assert "site" in text
