"""Hosts of URLs, as browsers read them: names in any script, IPv4 in all of its spellings, IPv6 in brackets.

Two programs that read a name differently talk to different servers, so this follows the URL Standard of the WHATWG
(https://url.spec.whatwg.org/, "host parsing"), with the lengths that DNS allows.
"""

import ipaddress
import re
import unicodedata
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["parse_host"]

# "Forbidden domain code points".
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f#/:<>?@\[\\\]^|%]")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_ACE: Final = "xn--"
_MOST_LABEL: Final = 63
_MOST_NAME: Final = 253
_JOINERS: Final = "\u200c\u200d"
# Bidirectional categories of scripts that run from right to left (RFC 5893, section 1.4).
_RIGHT_TO_LEFT: Final = frozenset(("R", "AL", "AN"))


def parse_host(text: str) -> str:
    """Convert the host of an ``https`` or ``http`` URL to the form that is sent on the wire.

    Args:
        text: The host as in the URL: an IPv6 address in brackets, an IPv4 address, or a name, possibly
            percent-encoded.

    Returns:
        A name in lower-case ASCII, four decimal numbers, or an IPv6 address in brackets.

    Raises:
        ValueError: It is none of these. The message completes "the host …".
    """
    if text.startswith("["):
        return f"[{_ipv6(text)}]"
    try:
        # Escapes are decoded first, so that nothing can be hidden in them.
        name = unquote_to_bytes(text.encode()).decode()
    except UnicodeError:
        raise ValueError("is no valid name (its escapes are no UTF-8)") from None
    name = _to_ascii(name)
    if not name:
        raise ValueError("is empty")
    if found := _FORBIDDEN.search(name):
        raise ValueError(f"is no valid name: it contains {found[0]!r}")
    if _ends_in_number(name):
        return _ipv4(name)
    labels = name.removesuffix(".").split(".")
    if not all(labels):
        raise ValueError("is no valid name: it has an empty part between dots")
    if any(len(label) > _MOST_LABEL for label in labels):
        raise ValueError(f"is no valid name: a part between dots has more than {_MOST_LABEL} characters")
    if len(name.removesuffix(".")) > _MOST_NAME:
        raise ValueError(f"is no valid name: it has more than {_MOST_NAME} characters")
    return name


def _ipv6(text: str) -> str:
    if not text.endswith("]"):
        raise ValueError("begins like an IPv6 address, but has no closing bracket")
    if "%" in text:
        raise ValueError("is an address with a zone, which URLs cannot have")
    try:
        return ipaddress.IPv6Address(text[1:-1]).compressed
    except ValueError:
        raise ValueError(f"is no IPv6 address: {text}") from None


# -- IPv4


def _ends_in_number(name: str) -> bool:
    """Whether browsers read it as an IPv4 address."""
    last = name.removesuffix(".").rpartition(".")[2]
    return _NUMBER.fullmatch(last) is not None


def _ipv4(name: str) -> str:
    """Read an IPv4 address: up to four decimal, octal or hexadecimal numbers; the last one fills the rest."""
    parts = name.removesuffix(".").split(".")
    numbers = [_number(part) for part in parts]
    *first, last = numbers
    if len(parts) > 4 or None in numbers or last is None:
        raise ValueError("ends in a number, but is no IPv4 address")
    address = last
    for position, number in enumerate(first):
        if number is None or number > 255:
            raise ValueError("is no IPv4 address: a number in it is above 255")
        address += number << (8 * (3 - position))
    if last >= 256 ** (4 - len(first)):
        raise ValueError("is no IPv4 address: its last number is too large")
    return str(ipaddress.IPv4Address(address))


def _number(part: str) -> int | None:
    """One number of an IPv4 address; None for anything else."""
    if not _NUMBER.fullmatch(part) or len(part) > 40:
        return None
    base, digits = 10, part
    if part[:2].lower() == "0x":
        base, digits = 16, part[2:]
    elif len(part) > 1 and part[0] == "0":
        base, digits = 8, part[1:]
    try:
        return int(digits or "0", base)
    except ValueError:
        return None


# -- names in other scripts (UTS 46, non-transitional)


def _to_ascii(name: str) -> str:
    """Convert a name to the form that is looked up: mapped, checked, and in Punycode if it is not ASCII."""
    if name.isascii() and _ACE not in name.lower():
        return name.lower()
    idna = _idna()
    if idna is None:
        if name.isascii():
            return name.lower()
        raise ValueError(
            "is not ASCII: install the extra for such names (`pip install wtio[idna]`), or give it in its ASCII form, "
            "which begins with `xn--`"
        )
    try:
        labels = [(label, _decode(label)) for label in idna.uts46_remap(name, std3_rules=False).split(".")]
        # RFC 5893, section 2: if one label is right-to-left, the rule applies to all of them.
        is_bidi = any(
            unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for _, text in labels for character in text
        )
        for label, text in labels:
            if not text.isascii() or is_bidi:
                _check_label(idna, label, text, is_bidi)
    except UnicodeError as error:  # also the base of all of idna's errors
        raise ValueError(f"is no valid name ({error})") from None
    return ".".join(label if label.isascii() else _ACE + text.encode("punycode").decode() for label, text in labels)


def _idna() -> "ModuleType | None":
    """The package with Unicode's mappings; None if the extra is not installed."""
    try:
        import idna
    except ImportError:
        return None
    return idna


def _decode(label: str) -> str:
    """The Unicode form of a label."""
    if not label.startswith(_ACE):
        return label
    code = label.removeprefix(_ACE)
    try:
        text = code.encode("ascii").decode("punycode")
        is_read = not text.isascii() and text.encode("punycode").decode() == code
    except (UnicodeError, OverflowError):
        is_read = False
    if not is_read:
        raise UnicodeError(f"{label!r} is no Punycode")
    return text


def _check_label(idna: "ModuleType", label: str, text: str, is_bidi: bool) -> None:
    """Check the validity criteria of UTS 46, section 4.1. Hyphens are allowed anywhere, as in browsers."""
    if not text:
        return
    # Mapping must not change the decoded form of a label in Punycode.
    if label != text and idna.uts46_remap(text, std3_rules=False) != text:
        raise UnicodeError(f"{label!r} holds characters that have another form")
    idna.check_nfc(text)
    idna.check_initial_combiner(text)
    for position, character in enumerate(text):
        if character in _JOINERS and not idna.valid_contextj(text, position):
            raise UnicodeError(f"a joiner at position {position + 1} of {label!r} joins nothing")
    if is_bidi:
        idna.check_bidi(text, check_ltr=True)
