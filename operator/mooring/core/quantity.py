"""Resource quantities in the one form that the API server gives back.

Two quantities that mean the same must not look like a change, neither in a revision's identity
nor in an apply. The rules are those of apimachinery's `resource.Quantity` (CanonicalizeBytes).
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, localcontext

from mooring.api.schema_types import quantity_value, split_quantity

_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SMALLEST = Decimal("1e-9")
_GREATEST = Decimal(2**63 - 1)


def canonical(quantity: str | float) -> str:
    """The canonical text of a quantity: `0.5` → `500m`, `1024Mi` → `1Gi`, `1e3` → `1e3`.

    The suffix keeps its family: binary stays binary as long as the value is a whole number of at
    least 1024, decimal exponents stay exponents. Raises ValueError if it is no quantity.
    """
    text = _as_text(quantity)
    with localcontext(prec=100):
        number, suffix = split_quantity(text)
        value = quantity_value(text)
        sign = "-" if value < 0 else ""
        size = _rounded_up(abs(value))
        if suffix.endswith("i") and (size == 0 or size >= 1024) and size == int(size):
            return sign + _binary(int(size))
        exponent = suffix[:1] in ("e", "E") and len(suffix) > 1
        return sign + _decimal(size, exponent=exponent)


def _as_text(quantity: str | float) -> str:
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | float):
        raise ValueError(f"{quantity!r} is not a resource quantity: write 500m, 2 or 1Gi")
    return format(Decimal(str(quantity)), "f") if isinstance(quantity, float) else str(quantity)


def _rounded_up(size: Decimal) -> Decimal:
    """Nothing is finer than one billionth, nothing greater than 2^63-1."""
    return min(size.quantize(_SMALLEST, rounding=ROUND_CEILING), _GREATEST)


def _binary(size: int) -> str:
    power = 0
    while size and size % 1024 == 0 and power + 1 < len(_BINARY):
        size //= 1024
        power += 1
    return f"{size}{_BINARY[power]}"


def _decimal(size: Decimal, *, exponent: bool) -> str:
    if size == 0:
        return "0"
    scaled, power = int(size.scaleb(9)), -9
    while scaled % 1000 == 0 and power < 18:
        scaled //= 1000
        power += 3
    if exponent:
        return f"{scaled}e{power}" if power else str(scaled)
    return f"{scaled}{_DECIMAL[power]}"
