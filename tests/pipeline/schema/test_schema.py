"""The schema: what it accepts, what it refuses and in which words, what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.schema import CategoricalFeature, FeatureSchema, NumericFeature, plain_name
from pipeline.schema.formats import expand_range

PRESETS = ("avazu", "criteo", "open_bandit", "synthetic", "synthetic_sequences", "toss", "upworthy")
BASE = {
    "name": "small",
    "label": "click",
    "features": [{"name": "x", "kind": "numeric"}, {"name": "c", "kind": "categorical"}],
}


def schema(**changes: object) -> FeatureSchema:
    return FeatureSchema.from_yaml(yaml.safe_dump({**BASE, **changes}), "test.yaml")


def refusal(raw: dict[str, object] | str) -> str:
    text = raw if isinstance(raw, str) else yaml.safe_dump({**BASE, **raw})
    with pytest.raises(ConfigError) as caught:
        FeatureSchema.from_yaml(text, "test.yaml")
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith("test.yaml")
    assert caught.value.remedy, message
    assert message.count("got ") <= 1, message
    return message


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_survive_a_round_trip(name: str) -> None:
    preset = FeatureSchema.load(name)
    again = FeatureSchema.from_yaml(preset.to_yaml())
    assert again == preset
    assert again.fingerprint() == preset.fingerprint()


def test_the_criteo_preset_is_the_criteo_layout() -> None:
    criteo = FeatureSchema.load("criteo")
    assert criteo.columns[:15] == (*(f"I{i}" for i in range(1, 14)), "C1", "C2")
    assert len(criteo.input_numbers) == 13
    assert len(criteo.input_texts) == 26
    assert criteo.number_columns == (*criteo.input_numbers, "label")


def test_a_file_is_loaded_by_path_and_a_typo_gets_the_nearest_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(schema().to_yaml())
    assert FeatureSchema.load(path) == schema()
    with pytest.raises(ConfigError, match=r"'critoe'.*Did you mean 'criteo'.*avazu, criteo"):
        FeatureSchema.load("critoe")
    with pytest.raises(ConfigError, match="a directory"):
        FeatureSchema.load(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"readable YAML file.*UnicodeDecodeError"):
        FeatureSchema.load(path)


RICH = schema(
    source={"kind": "csv", "delimiter": ";", "null_values": ["NA"]},
    features=[
        {"name": "x", "kind": "numeric", "clip": [0, 5], "quantile_buckets": 4},
        {"name": "y", "kind": "numeric", "missing_indicator": True, "column": "raw y"},
        {"name": "c", "kind": "categorical", "min_count": 3},
        {"name": "s", "kind": "sequence", "separator": "|", "vocabulary_of": "c"},
        {"name": "both", "kind": "cross", "of": ["c", "s"]},
        {"name": "t", "kind": "datetime", "format": "%y%m%d%H", "parts": ["hour"]},
        {"name": "picture", "kind": "image", "height": 8},
    ],
    weight="w",
    time={"column": "t", "format": "%y%m%d%H"},
    split={"by": "key", "key": "user", "test": 0.25},
    carry=["propensity"],
)


def test_every_kind_survives_yaml() -> None:
    assert FeatureSchema.from_yaml(RICH.to_yaml()) == RICH


CHANGES = [
    {"name": "other"},
    {"label": "clicked"},
    {"source": {"kind": "parquet"}},
    {"source": {"kind": "csv", "delimiter": "\t"}},
    {"features": BASE["features"][::-1]},
    {"features": [{"name": "x", "kind": "numeric", "log1p": True}, BASE["features"][1]]},
    {"features": [{"name": "x", "kind": "numeric", "column": "X"}, BASE["features"][1]]},
    {"features": [{"name": "x", "kind": "categorical"}, BASE["features"][1]]},
    {"weight": "w"},
    {"time": {"column": "t"}},
    {"split": {"seed": 1}},
    {"carry": ["p"]},
]


def test_the_fingerprint_changes_with_anything_and_with_nothing_else() -> None:
    prints = [schema().fingerprint(), *(schema(**change).fingerprint() for change in CHANGES)]
    assert len(set(prints)) == len(prints)
    assert schema(weight=None).fingerprint() == schema().fingerprint()


def feature(**fields: object) -> dict[str, object]:
    return {"features": [{"name": "a", "kind": "numeric", **fields}]}


REFUSED = [
    ("name: [", ["must be YAML"]),
    ("- 1", ["must be a YAML mapping", "list"]),
    ({"wieght": "w"}, ["wieght", "unknown field", "Did you mean 'weight'"]),
    ({"label": None}, ["label"]),
    ({"features": []}, ["features", "at least 1 item"]),
    (feature(kind="numerc"), ["features.0", "'numerc'", "Did you mean 'numeric'"]),
    ({"features": [{"name": "a"}]}, ["features.0.kind must be given"]),
    ({"features": [{"kind": "numeric"}]}, ["features.0.numeric.name must be given"]),
    (feature(clp=[1, 2]), ["'clp'", "Did you mean 'clip'", "log1p"]),
    (feature(clip=[2, 1]), ["clip must be [low, high]", "[2.0, 1.0]"]),
    (feature(scale="zscore"), ["scale", "'zscore'", "Did you mean 'z_score'"]),
    (feature(missing_value=float("nan")), ["missing_value", "finite"]),
    (feature(quantile_buckets=1), ["quantile_buckets", "greater than or equal to 2", "1"]),
    (feature(name="a b"), ["letters, digits", "'a b'", "`column`"]),
    (feature(name="../a"), ["letters, digits", "'../a'"]),
    (feature(name="a\n"), ["letters, digits"]),
    (feature(name="a{3..1}"), ["first <= last", "a{3..1}"]),
    (feature(kind="categorical", min_count=0), ["min_count", "0"]),
    (feature(kind="categorical", num_oov_buckets=0), ["num_oov_buckets"]),
    (
        feature(kind="categorical", max_vocab_size=2**30, num_oov_buckets=2**30),
        ["must fit 31 bits", str(2**31 + 1)],
    ),
    (feature(kind="sequence", keep="newest"), ["keep", "'newest'", "Allowed: last, first"]),
    (feature(kind="sequence", vocabulary_of="x"), ["vocabulary_of", "categorical", "'x'"]),
    (feature(kind="cross", of=["c"]), ["of", "at least 2"]),
    (feature(kind="datetime", format="%d.%B"), ["time format", "%d.%B"]),
    (feature(kind="datetime", format="%m%d"), ["%Y or %y", "%m%d"]),
    (feature(kind="datetime", format="%Y%y"), ["time format"]),
    (feature(kind="datetime", parts=[]), ["parts", "at least 1"]),
    (feature(kind="datetime", parts=["minute"]), ["parts.0", "'minute'", "hour, weekday"]),
    (feature(kind="image", channels=4), ["channels", "4"]),
    ({"features": [BASE["features"][0]] * 2}, ["feature names must differ", "x twice"]),
    (
        {
            "features": [
                {"name": "x", "kind": "numeric", "missing_indicator": True},
                {"name": "x_missing", "kind": "numeric"},
            ]
        },
        ["encoded names", "x_missing twice"],
    ),
    (
        {
            "features": [
                {"name": "t", "kind": "datetime", "parts": ["hour"]},
                {"name": "t_hour", "kind": "categorical"},
            ]
        },
        ["encoded names", "t_hour twice"],
    ),
    (
        {
            "features": [
                {"name": "a", "kind": "numeric", "column": "z"},
                {"name": "b", "kind": "categorical", "column": "z"},
            ]
        },
        ["a column is one kind of model input", "z twice"],
    ),
    ({"label": "x"}, ["feature 'x' reads column 'x'", "must not see it"]),
    ({"carry": ["c"]}, ["feature 'c' reads column 'c'", "must not see it"]),
    (feature(kind="cross", of=["u", "click"]), ["'a' reads column 'click'", "must not see it"]),
    ({"label": {"clicks": "c", "impressions": "n"}}, ["feature 'c'", "must not see it"]),
    ({"label": {"clicks": "n"}}, ["`clicks` and `impressions` together"]),
    ({"label": {"column": "y", "clicks": "n", "impressions": "m"}}, ["either `column`"]),
    ({"weight": "c"}, ["not as both", "got c"]),
    ({"split": {"by": "key", "key": "x"}}, ["not as both", "got x"]),
    ({"split": {"by": "column", "column": "x"}}, ["not as both", "got x"]),
    ({"time": {"column": "x"}}, ["not as both", "got x"]),
    ({"split": {"by": "time"}}, ["`split.by: time` needs `time`"]),
    ({"split": {"by": "key"}}, ["`key` goes with `by: key`"]),
    ({"split": {"by": "row", "column": "s"}}, ["`column` goes with `by: column`"]),
    ({"split": {"by": "user"}}, ["split.by", "'user'", "row, key, time, column"]),
    ({"split": {"test": 0.6, "validation": 0.4}}, ["below 1", "0.4 + 0.6"]),
    ({"split": {"test": -0.1}}, ["split.test", "-0.1"]),
    ({"time": {"column": "t", "format": "unix"}}, ["time.format", "'unix'"]),
    ({"source": {"kind": "tsv"}}, ["source", "'tsv'", "csv, parquet, jsonl, examples"]),
    ({"source": {"kind": "csv", "header": False}}, ["needs `columns`"]),
    ({"source": {"kind": "csv", "delimiter": "::", "quote": "'"}}, ["delimiter", "'::'"]),
    ({"source": {"kind": "csv", "delimiter": "§"}}, ["ASCII", "'§'"]),
    ({"source": {"kind": "csv", "delimiter": '"'}}, ["delimiter and quote must differ"]),
    ({"source": {"kind": "csv", "columns": ["a", "a"]}}, ["a twice"]),
    ({"source": {"kind": "csv", "columns": "a,b"}}, ["columns", "tuple"]),
    (
        {"source": {"kind": "csv", "quote": None, "newlines_in_values": True}},
        ["newlines_in_values needs a quote"],
    ),
    ({"source": {"kind": "parquet", "quote": None}}, ["unknown field", "'quote'"]),
]


@pytest.mark.parametrize("raw, parts", REFUSED)
def test_wrong_schemas_name_the_field_the_value_and_the_remedy(
    raw: dict[str, object] | str, parts: list[str]
) -> None:
    message = refusal(raw)
    assert all(part in message for part in parts), message


def test_several_problems_are_counted() -> None:
    message = refusal({**feature(clip=[2, 1]), "wieght": 1, "tmie": 2})
    assert "2 more problems after this one" in message


@given(first=st.integers(0, 50), width=st.integers(0, 20))
def test_ranges_expand_in_order(first: int, width: int) -> None:
    names = expand_range(f"a{{{first}..{first + width}}}b")
    assert names == [f"a{i}b" for i in range(first, first + width + 1)]


def test_two_ranges_expand_to_their_product() -> None:
    assert expand_range("a{1..2}_{3..4}") == ["a1_3", "a1_4", "a2_3", "a2_4"]


def test_patterns_take_what_nobody_else_names() -> None:
    patterned = schema(
        features=[
            {"name": "l_feat_14", "kind": "categorical"},
            {"name": "l_feat_*", "kind": "numeric"},
            {"name": "hist *".replace(" ", "_"), "kind": "numeric", "log1p": True},
        ],
        carry=["l_feat_9"],
    )
    columns = ["click", "l_feat_2", "l_feat_14", "l_feat_1", "l_feat_9", "hist_a b"]
    resolved = patterned.resolve(columns)
    assert resolved.is_resolved
    assert not patterned.is_resolved
    assert [(f.name, f.column) for f in resolved.features] == [
        ("l_feat_14", "l_feat_14"),
        ("l_feat_2", "l_feat_2"),
        ("l_feat_1", "l_feat_1"),
        ("hist_a_b", "hist_a b"),
    ]
    assert isinstance(resolved.features[0], CategoricalFeature)
    assert isinstance(resolved.features[3], NumericFeature)
    assert resolved.features[3].log1p
    assert FeatureSchema.from_yaml(resolved.to_yaml()) == resolved


@pytest.mark.parametrize(
    "columns, parts",
    [
        (["clik", "x", "c"], ["missing: click", "clik, x, c", "Did you mean 'clik'"]),
        (["click", "c"], ["missing: x"]),
        (["click", "x", "x", "c"], ["must occur once", "x twice"]),
    ],
)
def test_columns_that_are_not_as_the_schema_says(columns: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        schema().resolve(columns)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_pattern_must_match_and_matches_may_not_collide() -> None:
    patterned = schema(features=[{"name": "f_*", "kind": "numeric"}])
    with pytest.raises(ConfigError, match=r"pattern 'f_\*'.*must match a column"):
        patterned.resolve(["click", "g"])
    resolved = patterned.resolve(["click", "f_a b", "f_a+b", "f_a_b"])
    assert [(f.name, f.column) for f in resolved.features] == [
        ("f_a_b", "f_a b"), ("f_a_b_2", "f_a+b"), ("f_a_b_3", "f_a_b"),
    ]  # fmt: skip


def test_scoring_needs_no_label() -> None:
    inputs = RICH.inputs_only()
    assert inputs.columns == ("x", "raw y", "c", "s", "t", "picture")
    inputs.check_columns(list(inputs.columns))


@pytest.mark.parametrize(
    "column, name", [("a", "a"), ("user-item", "user_item"), ("_x", "x_x"), ("", "x")]
)
def test_input_names_are_what_tensorflow_allows(column: str, name: str) -> None:
    features = [{"name": "feature", "kind": "categorical", "column": "f"}]
    features.append({"name": "crossed", "kind": "cross", "of": ["f", column or "g"]})
    if column:
        assert schema(features=features).input_names == {"f": "feature", column: name}
    assert plain_name(column) == name


def test_every_column_has_an_input_name_of_its_own() -> None:
    columns = {"風險等級": "risk", "a b": "a.b", "a_b": "a_b", "a-b": "a-b", "公募": "x2"}
    features = [{"name": n, "kind": "categorical", "column": c} for c, n in columns.items()]
    features.append({"name": "crossed", "kind": "cross", "of": ["產品", "種類", "a b"]})
    names = schema(features=features).input_names
    assert names == {
        "風險等級": "risk", "a b": "a_b", "a_b": "a_b_2", "a-b": "a_b_3", "公募": "x2",
        "產品": "column_6", "種類": "column_7",
    }  # fmt: skip
    earlier = schema(features=features[:1], rules=1)
    assert earlier.input_names == {"風險等級": "x____"}, "an earlier model keeps its inputs' names"
