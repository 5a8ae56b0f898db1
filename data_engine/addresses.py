"""Which addresses the rows of a data set may send this machine to.

A data set that was fetched from somewhere says in `uri` where each image lies, and reading it is a request by this
machine: to the cloud's metadata service, to a printer, to a database that trusts its own network. What a person
names (SOURCE, DATASET, a recipe's base_url) is their own word and is not looked at here.

A row may name local files, a web server or a file server with a public address, and a bucket. It may not name

- an address that is private, loopback, link-local or otherwise of no use to others;
- who a bucket's requests, which bear this machine's credentials, are sent to (`endpoint_override` and the like);
- a scheme that is not known to stay with one server, or a chain of them (`zip://x::http://y`).

Where the data set itself lies is allowed, and what FDE_ALLOW_PRIVATE lists: hosts, networks (10.0.0.0/8), schemes
(`mycorp://`), separated by commas; or 1, which allows everything.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from urllib.parse import parse_qsl, urlsplit

from data_engine.blanked import blanked
from data_engine.errors import DatasetError, ImageError
from data_engine.literal_secrets import secret_in_url
from data_engine.storage import is_local

ALLOW = "FDE_ALLOW_PRIVATE"

WEB = ("http://", "https://")

_SERVERS = frozenset(
    {"http", "https", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs", "viewfs", "abfs", "abfss"}
)
"""Schemes whose URL names the host that is asked."""

_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "adl", "oss", "oci", "hf", "memory"})
"""Schemes whose host is set by the process's own settings, unless a parameter says otherwise."""

_HOST_PARAMETERS = frozenset({"endpoint_override", "blob_storage_authority", "dfs_storage_authority"})

_AZURE = (".core.windows.net", ".fabric.microsoft.com")

_CLOUD = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("192.0.0.0/24"))
"""Services of clouds for their own machines at addresses that look public: Azure's, and Oracle's."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_uri(uri: str, near: str) -> bool:
    """Whether a row's address is on the server on which its data set, at the URL `near`, lies itself.

    Raises ImageError (`refused_address`) for one that a row may not name. Names are looked up for servers other
    than the web's, whose every connection `connected` checks.
    """
    try:
        parts, own = urlsplit(uri), urlsplit(near)
        host = parts.hostname or ""
    except ValueError as error:
        raise _refused(uri, "is no address") from error
    if secret_in_url(uri) and not uri.startswith(WEB):
        raise _refused(uri, "holds a secret of somebody's")
    listed = _listed()
    alike = parts.scheme == own.scheme
    known = dict(parse_qsl(own.query)) if alike else {}
    for name, value in parse_qsl(parts.query):
        there = urlsplit(value if "://" in value else f"//{value}").hostname or ""
        if name in _HOST_PARAMETERS and known.get(name) != value and not _is_listed(there, (), listed):
            raise _refused(uri, f"would send this machine's credentials to {there[:100]!r}")
    if alike and parts.netloc == own.netloc:
        return True
    if "1" in listed or f"{parts.scheme}://" in listed:
        return False
    if parts.scheme not in _SERVERS | _BUCKETS:
        raise _refused(uri, f"has the scheme {parts.scheme[:40]!r}, which rows of a data set may not have")
    if parts.scheme in _SERVERS and not uri.startswith(WEB) and not host.endswith(_AZURE):
        _check_host(uri, host)
    return False


def check_source(source: str, near: str) -> None:
    """Raises DatasetError where the rows of a data set's source would all be refused: it is told before any work."""
    if is_local(source):
        return
    try:
        if not check_uri(source, near) and source.startswith(WEB):
            _check_host(source, urlsplit(source).hostname or "")
    except ImageError as error:
        raise DatasetError(
            f"the images of {near} are not read: {error.message}",
            f"if you know that place, set {ALLOW} to its host (or network) where the specialists run",
        ) from error


def connected(uri: str, host: str, port: int, seconds: float) -> socket.socket:
    """A connection to a web server that a row may name. What is checked is the address that is connected to.

    So a name that means one address when it is checked and another afterwards is of no use. Raises ImageError
    (`refused_address`), or OSError.
    """
    failed: OSError = OSError(f"the name {host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        _check_address(uri, host, str(place[0]))
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(seconds)
            made.connect(place)
        except OSError as error:
            made.close()
            failed = error
            continue
        return made
    raise failed


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could mean."""
    found = _inner(ipaddress.ip_address(address.partition("%")[0]))
    return found.is_global and not found.is_multicast and not any(found in cloud for cloud in _CLOUD)


def _inner(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _check_host(uri: str, host: str) -> None:
    try:
        found = {str(place[0]) for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return  # no address, no request
    for address in found:
        _check_address(uri, host, address)


def _check_address(uri: str, host: str, address: str) -> None:
    if not is_public(address) and not _is_listed(host, (address,), _listed()):
        raise _refused(uri, f"leads to {address}, which is no public address")


def _listed() -> frozenset[str]:
    return frozenset(part.strip().lower() for part in os.environ.get(ALLOW, "").split(",") if part.strip())


def _is_listed(host: str, addresses: tuple[str, ...], listed: frozenset[str]) -> bool:
    if "1" in listed or host.lower() in listed:
        return True
    for address in addresses:
        ip = ipaddress.ip_address(address.partition("%")[0])
        for entry in listed:
            try:
                if ip in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
    return False


def _refused(uri: str, why: str) -> ImageError:
    return ImageError(
        "refused_address", f"{blanked(uri[:200])} {why}; {ALLOW} can allow it (docs/security.md)"
    )
