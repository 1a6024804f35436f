"""Text that a terminal shows and does not obey."""

from __future__ import annotations

__all__ = ["plain", "shortened"]

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = {
    # C0, DEL, C1, the line separators, what turns the direction of writing, and half characters (what a
    # file name that is no UTF-8 is read as), which no stream can write.
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_BIDI, *range(0xD800, 0xE000))
} | {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
_ESCAPED_BUT_LINES = {k: v for k, v in _ESCAPED.items() if chr(k) not in "\t\n"}


def plain(text: str, *, lines: bool = False) -> str:
    r"""The text with every control character written out, `\x1b` say.

    A value of a file may hold a terminal's escape sequence: whatever shows a value shows this.

    Args:
        text: from anywhere.
        lines: leave tabs and line breaks as they are.
    """
    return text.translate(_ESCAPED_BUT_LINES if lines else _ESCAPED)


def shortened(text: str, most: int) -> str:
    """The text, or its first `most` characters and how many there were."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
