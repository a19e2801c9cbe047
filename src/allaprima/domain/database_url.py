"""The URL of a PostgreSQL database, as libpq reads it: `postgresql://user:password@host:5432/database?sslmode=require`.

No message repeats a part of the URL, since a password with unescaped characters is read as other parts.
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

#: The setting that has the URL.
SETTING = "ALLAPRIMA_STORE__DATABASE_URL"
FORM = "must look like postgresql://user@host:5432/database"
SCHEMES = ("postgresql", "postgres")
#: Parameters of libpq that are secret.
_SECRETS = ("password", "sslpassword")
_PORTS = re.compile(r"[0-9]{0,5}(,[0-9]{0,5})*")


def check_database_url(url: str) -> None:
    """Raise ValueError unless a URL names a database of a PostgreSQL server."""
    scheme, is_url, rest = url.partition("://")
    if not is_url or scheme not in SCHEMES:
        raise ValueError(FORM)
    authority, _, path = rest.partition("?")[0].partition("/")
    if "@" in path or not all(_PORTS.fullmatch(_port(host)) for host in _hosts(authority).split(",")):
        raise ValueError(f"{FORM}; special characters of the password must be percent-encoded, such as %2F for /")
    if not unquote(path):
        raise ValueError(f"{FORM}; it names no database")


def _hosts(authority: str) -> str:
    return authority.rpartition("@")[2]


def _port(host: str) -> str:
    """Return the port after a host name or an IPv6 address in brackets; empty if there is none."""
    return host.rpartition("]")[2].partition(":")[2]


def place_of(url: str) -> str:
    """Return the hosts and the database of a valid URL, such as `db.example:5432/allaprima`, for messages."""
    authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return f"{_hosts(authority)}/{path}"


def has_password(url: str) -> bool:
    """Whether a URL contains a password, even in a URL that is invalid otherwise."""
    before_query = url.partition("://")[2].partition("?")[0]
    user, is_user, _ = before_query.partition("@")
    if is_user and ":" in user:
        return True
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return True
    return any(name in _SECRETS for name, _ in query)
