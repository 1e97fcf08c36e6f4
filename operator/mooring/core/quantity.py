"""Resource quantities in the one form that the API server gives back.

Two quantities that mean the same must not look like a change, neither in a revision's identity
nor in an apply. The rules are those of apimachinery's `resource.Quantity` (CanonicalizeBytes) and
of the defaulting of resource lists in pods, which rounds up to thousandths.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, localcontext

from mooring.api.schema_types import quantity_value, split_quantity

_DECIMAL = {-3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SMALLEST = Decimal("1e-3")
_GREATEST_BINARY = Decimal(2**63 - 1)
#: Enough for 40 characters with a two-digit exponent: nothing is rounded by accident.
_PRECISION = 200


def canonical(quantity: str | float) -> str:
    """The canonical text of a quantity: `0.5` → `500m`, `1024Mi` → `1Gi`, `1000` → `1k`.

    The API server returns it unchanged, and returns it for every ordinary spelling of the same
    quantity. (It leaves odd ones such as `+5`, `007` or `5.` as they are: they get the ordinary
    form here.) The suffix keeps its family: binary stays binary where the value is a whole number
    of at least 1024, and a decimal exponent stays one. Raises ValueError if the text is no
    quantity, and TypeError for what is neither text nor number.
    """
    text = _as_text(quantity)
    with localcontext(prec=_PRECISION):
        _, suffix = split_quantity(text)
        value = quantity_value(text)
        sign = "-" if value < 0 else ""
        size = abs(value.quantize(_SMALLEST, rounding=ROUND_CEILING))
        if suffix.endswith("i"):
            size = min(size, _GREATEST_BINARY)
            if size >= 1024 and size == int(size):
                return sign + _binary(int(size))
        return sign + _decimal(size, exponent=len(suffix) > 1 and suffix[0] in "eE")


def _as_text(quantity: str | float) -> str:
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | float):
        raise TypeError(f"{quantity!r} is not a resource quantity: write 500m, 2 or 1Gi")
    return format(Decimal(str(quantity)), "f") if isinstance(quantity, float) else str(quantity)


def _binary(size: int) -> str:
    power = 0
    while size % 1024 == 0 and power + 1 < len(_BINARY):
        size //= 1024
        power += 1
    return f"{size}{_BINARY[power]}"


def _decimal(size: Decimal, *, exponent: bool) -> str:
    if size == 0:
        return "0"
    scaled, power = int(size.scaleb(3)), -3
    while scaled % 1000 == 0 and (exponent or power + 3 in _DECIMAL):
        scaled //= 1000
        power += 3
    if exponent:
        return f"{scaled}e{power}" if power else str(scaled)
    return f"{scaled}{_DECIMAL[power]}"
