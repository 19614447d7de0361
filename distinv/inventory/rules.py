"""What a single value may be, for the builders and for the log alike.

Text is kept exactly as given (no Unicode normalisation: `é` as one and as two code points are
two skus). It must be encodable as UTF-8 and hold no NUL, which some tools cannot store.
"""

from __future__ import annotations

from distinv.config import Limits
from distinv.errors import InvalidLocation, InvalidQuantity, InvalidRequest, InvalidSku

LIMITS = Limits()


def is_text(value: object, most: int, least: int = 0) -> bool:
    """Whether `value` is a str of `least` to `most` characters that every tool can store."""
    if not isinstance(value, str) or not least <= len(value) <= most or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_sku(sku: object, limits: Limits = LIMITS) -> None:
    """Raises InvalidSku."""
    if not is_text(sku, limits.sku_chars, 1):
        raise InvalidSku(f"A sku is text of 1 to {limits.sku_chars} characters, not {_show(sku)}.")


def check_location(name: object, limits: Limits = LIMITS) -> None:
    """Raises InvalidLocation."""
    if not is_text(name, limits.sku_chars, 1):
        raise InvalidLocation(
            f"A location is text of 1 to {limits.sku_chars} characters, not {_show(name)}."
        )


def check_text(what: str, value: object, most: int) -> None:
    """Raises InvalidRequest."""
    if not is_text(value, most):
        raise InvalidRequest(f"{what} is text of at most {most} characters, not {_show(value)}.")


def check_quantity(value: object, limits: Limits = LIMITS, *, least: int = 1) -> None:
    """A count of units; with `least` 0 none is one too. Raises InvalidQuantity."""
    if type(value) is not int or not least <= value <= limits.quantity_max:
        raise InvalidQuantity(
            f"A quantity is an int from {least} to {limits.quantity_max}, not {_show(value)}."
        )


def check_delta(value: object, limits: Limits = LIMITS) -> None:
    """A signed change, not 0. Raises InvalidQuantity."""
    if type(value) is not int or not 1 <= abs(value) <= limits.quantity_max:
        raise InvalidQuantity(
            f"A delta is an int other than 0, at most {limits.quantity_max} up or down, "
            f"not {_show(value)}."
        )


def check_level(value: object, limits: Limits = LIMITS) -> None:
    """What a level may be. Raises InvalidQuantity."""
    if type(value) is not int or not 0 <= value <= limits.level_max:
        raise InvalidQuantity(f"A level is an int from 0 to 2**63 - 1, not {_show(value)}.")


def check_version(value: object) -> None:
    """Raises InvalidRequest."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidRequest(f"A version is an int of 0 or more, not {_show(value)}.")


def _show(value: object) -> str:
    """A short, printable form: also of what cannot be encoded."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
