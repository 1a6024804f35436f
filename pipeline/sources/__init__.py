"""Files -> Arrow tables in splittable blocks; rows that cannot be read -> rejects, none lost."""

from pipeline.sources.block import Block
from pipeline.sources.blocks import InputPlan, plan_blocks
from pipeline.sources.chunk import Chunk, Reject
from pipeline.sources.reading import read_block

__all__ = ["Block", "Chunk", "InputPlan", "Reject", "plan_blocks", "read_block"]
