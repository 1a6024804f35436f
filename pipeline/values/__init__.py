"""What a file says about one value becomes one string or number: the rules, in one place.

`pipeline.values.table` lists them and docs/values.md shows them. Every door (text files, JSON, Parquet,
tf.Example, the client) hands what it found to `conform`, `to_text`, `to_number` or `from_python`; the graph
applies the rules of text (null markers, spellings of a boolean, lists) itself, by the same expressions.
"""

from pipeline.values.convert import conform, naming_column, to_number, to_text
from pipeline.values.lists import list_items
from pipeline.values.python_values import from_python
from pipeline.values.rules import ColumnRule, column_rules
from pipeline.values.times import parse_time

__all__ = [
    "ColumnRule",
    "column_rules",
    "conform",
    "from_python",
    "list_items",
    "naming_column",
    "parse_time",
    "to_number",
    "to_text",
]
