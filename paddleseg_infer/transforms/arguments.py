"""Checks the arguments of transforms.

Each check returns the value in its final type. If the value is wrong, it raises ValueError, whose
message says what the value must be.
"""

from typing import Any

LARGEST, SMALLEST = 1e12, 1e-6  # beyond these no argument makes sense, and arithmetic may fail
LARGEST_SIDE = 1_000_000  # pixels
INTERPOLATIONS = ("NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4")


def number(value: Any) -> float:
    """Returns a number up to LARGEST, an int if it is whole.

    Converts strings too, because YAML 1.1 reads `1e10` as a string.
    """
    if isinstance(value, bool):
        raise ValueError("a number")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a number") from None
    if not abs(result) <= LARGEST:  # this is also true for NaN
        raise ValueError(f"a number up to {LARGEST:g}")
    return int(result) if result.is_integer() else result


def positive(value: Any) -> float:
    if number(value) < SMALLEST:
        raise ValueError("a number above 0")
    return number(value)


def whole(value: Any) -> int:
    result = number(value)
    if result != int(result) or not 0 < result <= LARGEST_SIDE:
        raise ValueError(f"a whole number above 0, up to {LARGEST_SIDE}")
    return int(result)


def divisor(value: Any) -> int | None:
    return whole(value) if value else None  # PaddleSeg treats 0 as None


def optional_whole(value: Any) -> int | None:
    return None if value is None else whole(value)


def uint8_value(value: Any) -> float:
    if not 0 <= number(value) < 256:
        raise ValueError("a number from 0 to 255")
    return number(value)


def size_wh(value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("a list of two whole numbers, [width, height]")
    return whole(value[0]), whole(value[1])


def of_channels(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list of one number, or of one for each channel")
    return tuple(number(item) for item in value)


def divisors(value: Any) -> tuple[float, ...]:
    if 0 in of_channels(value):
        raise ValueError("a list of one number, or of one for each channel, none of them 0")
    return of_channels(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def interpolation(value: Any) -> str:
    if value == "RANDOM":
        raise ValueError("a fixed interpolation (RANDOM is for training)")
    if value not in INTERPOLATIONS:
        raise ValueError("one of " + ", ".join(INTERPOLATIONS))
    return value


def short_side(value: Any) -> float:
    if isinstance(value, list | tuple):
        raise ValueError("one number (a list is for training)")
    return positive(value)
