"""JSON that is nested thousands of levels deep is one reject, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.schema_inference.infer import infer_schema
from pipeline.sources import plan_blocks, read_block

SCHEMA = """
name: x
source: {kind: jsonl}
label: click
features: [{name: site, kind: categorical}]
"""


@pytest.mark.parametrize("depth", [900, 2_000, 300_000])
@pytest.mark.parametrize("opened, closed", [("[", "]"), ('{"a": ', "}")])
@pytest.mark.parametrize("place", [0, 1, 20])
def test_deep_json_is_one_reject(
    depth: int, opened: str, closed: str, place: int, tmp_path: Path
) -> None:
    lines = [f'{{"click": {i % 2}, "site": "s{i % 3}"}}' for i in range(20)]
    lines.insert(place, f'{{"click": 1, "site": {opened * depth}1{closed * depth}}}')
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    plan = plan_blocks(FeatureSchema.from_yaml(SCHEMA), list_inputs([str(path)]))
    chunks = [c for block in plan.blocks for c in read_block(block, plan.schema)]
    (reject,) = [r for c in chunks for r in c.rejects]
    assert sum(c.table.num_rows for c in chunks) == 20
    assert reject.offset == sum(len(line) + 1 for line in lines[:place])
    assert reject.reason
    assert len(reject.reason) < 400
    assert len(infer_schema(str(path), 100).schema.features) == 1
