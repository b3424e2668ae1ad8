"""The fields of a request's JSON, each taken by name, with its type and its bounds.

What is not taken is refused by name: a parameter that a server quietly ignores is a wrong result.
``null`` is the same as leaving a field out, as it is for OpenAI.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from cs336lm.serving.api_error import ApiError, invalid

_DIGITS_SHOWN = 60


def parse_json(body: bytes) -> Any:
    """The value of a request's body.

    Raises ``ApiError`` for what is no JSON: also for NaN, for numbers without bounds and for
    brackets nested beyond all use.
    """
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except RecursionError:
        raise invalid("the body's JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8") from None
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class Fields:
    """An object of a request.

    Args:
        value: what stands where the object is expected.
        where: how errors name it; "" is the request itself.
    """

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise (
                self._wrong(where, value, "a JSON object")
                if where
                else invalid(f"the body must be a JSON object, not {_kind(value)}")
            )
        self._values: Mapping[str, Any] = value
        self._where = where
        self._known: set[str] = set()

    def take(self, name: str) -> Any:
        """The field as it is; None if it is not there."""
        self._known.add(name)
        return self._values.get(name)

    def name(self, field: str) -> str:
        """How errors name a field of this object."""
        return f"{self._where}.{field}" if self._where else field

    def text(self, name: str) -> str | None:
        """A string that is valid Unicode."""
        value = self.take(name)
        return None if value is None else as_text(value, self.name(name))

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(self.name(name), value, "true or false")
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number from ``least`` to ``most``."""
        value = self.take(name)
        return None if value is None else as_integer(value, self.name(name), least, most)

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number from ``least`` to ``most``."""
        value = self.take(name)
        return None if value is None else as_number(value, self.name(name), least, most)

    def only(self, name: str, allowed: Sequence[Any], why: str) -> None:
        """Refuses a parameter that others know, unless its value says what is done in any case."""
        value = self.take(name)
        if value is None or any(type(value) is type(a) and value == a for a in allowed):
            return
        raise invalid(
            f"{self.name(name)} is not supported: {why}", self.name(name), "unsupported_parameter"
        )

    def end(self) -> None:
        """Refuses the fields that nobody has taken."""
        for name in self._values:
            if name not in self._known:
                close = get_close_matches(name, self._known, n=1, cutoff=0.5)
                guess = f"; did you mean {close[0]}?" if close else ""
                shown = self.name(name)[:_DIGITS_SHOWN]
                raise invalid(
                    f"there is no parameter {_plain(shown)!r}{guess}",
                    _plain(shown),
                    "unknown_parameter",
                )

    @staticmethod
    def _wrong(name: str, value: Any, wanted: str) -> ApiError:
        return invalid(f"{name} must be {wanted}, not {_kind(value)}", name)


def as_text(value: Any, name: str) -> str:
    """``value`` if it is a string that is valid Unicode."""
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string, not {_kind(value)}", name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(f"{name} holds half a surrogate pair, which is no character", name) from None
    return value


def as_integer(value: Any, name: str, least: int, most: int) -> int:
    """``value`` if it is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be a whole number, not {_kind(value)}", name)
    if not least <= value <= most:
        raise invalid(f"{name} must be from {least} to {most}, not {_number(value)}", name)
    return value


def as_number(value: Any, name: str, least: float, most: float) -> float:
    """``value`` as a float, if it is a number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a number, not {_kind(value)}", name)
    if not least <= value <= most:  # no NaN is
        raise invalid(f"{name} must be from {least:g} to {most:g}, not {_number(value)}", name)
    return float(value)


def _number(value: float) -> str:
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of more than 64 bits"  # its digits may be thousands
    return "an infinite number" if not math.isfinite(value) else str(value)


def _plain(name: str) -> str:
    """A client's own text in an answer: without what is no character."""
    return name.encode(errors="replace").decode()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "a boolean"), (int, "a whole number"), (float, "a number"), (str, "a string"))
    kinds += ((list, "an array"), (dict, "an object"))  # type: ignore[assignment]
    return next(name for kind, name in kinds if isinstance(value, kind))
