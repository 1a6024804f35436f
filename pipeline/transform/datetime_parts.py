"""Hour, weekday, day and month out of a text, inside a graph. A text that does not fit is missing (id 0)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from pipeline.schema.time_format import EPOCH_BOUNDS, EPOCH_SCALE, directives, expression

__all__ = ["encode"]


def encode(
    texts: tf.Tensor, time_format: str, parts: Sequence[str], *, bounded: bool = True
) -> tf.Tensor:
    """String [batch] -> int32 [batch, parts]; weekday 1 is Monday, hour 1 is midnight.

    Args:
        texts: times as the schema's `format` writes them.
        time_format: see `pipeline.schema.DatetimeFeature`.
        parts: of hour, weekday, day, month.
        bounded: an epoch outside `EPOCH_YEARS` does not fit (it is of another unit).
    """
    valid = tf.strings.regex_full_match(texts, expression(time_format))
    if time_format in EPOCH_SCALE:
        seconds = _from_epoch(tf.where(valid, texts, "0"), EPOCH_SCALE[time_format])
        if bounded:
            valid &= (seconds >= EPOCH_BOUNDS[0]) & (seconds < EPOCH_BOUNDS[1])
        days, hour = seconds // 86400, tf.math.floormod(seconds, 86400) // 3600
        month, day = _month_and_day(days)
    else:
        valid, year, month, day, hour = _from_pattern(texts, valid, time_format)
        days = _days(year, month, day)
    values = {
        "hour": hour,
        "weekday": tf.math.floormod(days + 3, 7),  # 1970-01-01 was a Thursday
        "day": day - 1,
        "month": month - 1,
    }
    columns = [tf.where(valid, 1 + values[part], 0) for part in parts]
    return tf.cast(tf.stack(columns, axis=1), tf.int32)


def _from_epoch(texts: tf.Tensor, scale: int) -> tf.Tensor:
    """Seconds since 1970 of texts like 1414022400 or 1414022400.5."""
    whole = tf.strings.regex_replace(texts, r"\..*", "")
    return tf.strings.to_number(whole, tf.int64) // scale


def _from_pattern(
    texts: tf.Tensor, fits: tf.Tensor, time_format: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(valid, year, month, day, hour) of fixed-width texts."""
    where, example = directives(time_format)
    safe = tf.where(fits, texts, example)

    def number(directive: str, default: int) -> tf.Tensor:
        if directive not in where:
            return tf.fill(tf.shape(texts), tf.constant(default, tf.int64))
        return tf.strings.to_number(tf.strings.substr(safe, *where[directive]), tf.int64)

    if "Y" in where:
        year = number("Y", 1970)
    else:  # two digits as POSIX and Python read them: 69 is 1969, 68 is 2068
        short = number("y", 70)
        year = tf.where(short < 69, short + 2000, short + 1900)
    month, day, hour = number("m", 1), number("d", 1), number("H", 0)
    return fits & (day <= _month_length(year, month)), year, month, day, hour


def _month_length(year: tf.Tensor, month: tf.Tensor) -> tf.Tensor:
    lengths = tf.constant([31, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], tf.int64)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return tf.gather(lengths, month) + tf.cast(leap & (month == 2), tf.int64)


def _days(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, days_from_civil)."""
    y = year - tf.cast(month <= 2, tf.int64)
    era = y // 400
    year_of_era = y - era * 400
    day_of_year = (153 * tf.math.floormod(month + 9, 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


def _month_and_day(days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(month, day) of days since 1970-01-01 (H. Hinnant, civil_from_days)."""
    z = days + 719468
    day_of_era = z - z // 146097 * 146097
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = tf.where(shifted < 10, shifted + 3, shifted - 9)
    return month, day_of_year - (153 * shifted + 2) // 5 + 1
