"""What a server that batches says of a request, and whether it speaks of another caller's.

With batching on, TF Serving joins the rows of several callers into one run of the model, and what that run
fails with is everybody's answer: one caller's malformed Example or wrong width fails them all. Some texts
show that they are about another request; such a request is worth sending once more, when the other is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import grpc
import numpy as np

from serving.client.transports import CallError

__all__ = ["is_about_another_request", "largest_batch_of"]

_LARGEST = re.compile(r"Task size \d+ is larger than maximum input batch size (\d+)")
_SHAPES = "from different tasks have different shapes"  # batching_session.cc
_EXAMPLE = "Could not parse example input, value: '"  # TensorFlow's Example parsers, both texts
_FEATURE = re.compile(r"Name: [^,]*, (?:Key: .*?, |Feature: .*?, )?Index: (\d+)\.")
_CUT = "...TRUNCATED"
_NO_PRINTABLE = re.compile(r"[^ -~]")  # bytes that are no text come in three disguises


def largest_batch_of(error: CallError) -> int | None:
    """How many rows the server takes at most, if it refused a request for having more."""
    found = _LARGEST.search(error.message)
    return int(found[1]) if found else None


def is_about_another_request(error: CallError, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether the text of a refusal speaks of something that `inputs`, [B, ...] each, do not hold.

    A refused feature of an Example is named by its row in the joined batch: it counts as another's too, as
    it may well be. Every other text may be about this request, and that is what it is taken for.
    """
    if error.code not in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
        return False
    if _SHAPES in error.message or _FEATURE.search(error.message):
        return True
    _, quoted, value = error.message.partition(_EXAMPLE)
    if not quoted:
        return False
    value = value.partition(_CUT)[0].rpartition("'")[0] or value.partition(_CUT)[0]
    sent = (
        text.decode("utf-8", "replace")
        for array in inputs.values()
        if array.dtype == object
        for text in array.ravel().tolist()
    )
    quoted_text = _NO_PRINTABLE.sub("", value)
    return not any(_NO_PRINTABLE.sub("", text).startswith(quoted_text) for text in sent)
