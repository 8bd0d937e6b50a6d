"""Where recordings may lie, for services that take inputs of strangers: below roots, in no private network.

Both are settings of the environment, so that nobody who may only name inputs can change them.
`EARSHARD_ALLOWED_ROOTS` are folders and URLs, separated by commas; without it every place is allowed.
`EARSHARD_PRIVATE_ADDRESSES` are networks such as `10.1.0.0/16` that http(s) may lead to although they are
private; without it there are none. Object stores are reached as the environment says, and not restricted.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline.sources.recording import InputError

if TYPE_CHECKING:
    import aiohttp

ROOTS, PRIVATE = "EARSHARD_ALLOWED_ROOTS", "EARSHARD_PRIVATE_ADDRESSES"
SYSTEM_FOLDERS = ("/proc/", "/sys/", "/dev/", "/etc/", "/boot/")


class PrivateAddress(ValueError):
    """A web address leads into a private network; no `OSError`, so that nobody tries it again."""


def settings() -> dict[str, str]:
    """The settings that are made, for the processes of other machines."""
    return {name: os.environ[name] for name in (ROOTS, PRIVATE) if os.environ.get(name)}


def check_real_path(path: str) -> None:
    """Raise `InputError` if a path leads, by links and `..` too, to where no recording may lie."""
    folder, _, _ = path.rpartition("/")
    real = os.path.realpath(path) if os.path.islink(path) else f"{_real_folder(folder)}/"
    if f"{path}/".startswith(SYSTEM_FOLDERS) or f"{real}/".startswith(SYSTEM_FOLDERS):
        raise InputError("refused: lies in a folder of the system")
    _check_roots(real if real[-1] != "/" else f"{real}{path.rpartition('/')[2]}")


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder or "/").rstrip("/")


def check_url(url: str) -> None:
    """Raise `InputError` if a URL lies outside of the allowed roots, or at an address that is private."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        _check_literal(parts.hostname or "")
    if os.environ.get(ROOTS) and ".." in unquote(unquote(url)).replace("\\", "/").split("/"):
        raise InputError("refused: has .. in it")
    _check_roots(url)


def _check_literal(host: str) -> None:
    try:
        refuse_private("127.0.0.1" if host == "localhost" else host)
    except PrivateAddress as error:
        raise InputError(f"refused: {error}") from None


def _check_roots(place: str) -> None:
    text = os.environ.get(ROOTS)
    if text and not any(_is_below(place, root) for root in _roots(text)):
        raise InputError(f"refused: lies outside of {ROOTS}")


@lru_cache(maxsize=8)
def _roots(text: str) -> tuple[str, ...]:
    places = (place.strip() for place in text.split(","))
    return tuple(p.rstrip("/") if "://" in p else os.path.realpath(p).rstrip("/") for p in places if p)


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(f"{root}/")


def refuse_private(address: str) -> None:
    """Raise `PrivateAddress` for an IP address that is neither public nor allowed; names pass."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    if (ip.is_global and not ip.is_multicast) or any(ip in network for network in _allowed_networks()):
        return
    raise PrivateAddress(f"leads to the private address {ip}; {PRIVATE} may allow it")


def _allowed_networks() -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in os.environ.get(PRIVATE, "").split(","):
        if text.strip():
            yield ipaddress.ip_network(text.strip(), strict=False)


async def web_client(**settings: Any) -> aiohttp.ClientSession:
    """A client whose every connection, after any redirect and whatever a name resolves to, is checked."""
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_checked_socket), **settings)


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, sockaddr = address
    refuse_private(sockaddr[0])
    return socket.socket(family, kind, protocol)


def private_address_in(error: BaseException | None) -> PrivateAddress | None:
    """The refusal that an error of a client comes from, if any."""
    while error is not None and not isinstance(error, PrivateAddress):
        error = error.__cause__ or error.__context__
    return error
