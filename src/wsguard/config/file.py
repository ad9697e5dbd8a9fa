"""
The configuration file and the flags, as one structure: names are those of `wsguard.Policy`, with ``_``.

Every error of a file is told at once, with its key, what was found, what was expected, and the nearest valid name.
A flag stands for the key of the same name and replaces the file's value whole.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeVar, cast, get_args

import msgspec
from msgspec import Meta

from wsguard.config.units import DURATION_PATTERN, SIZE_PATTERN
from wsguard.vocabulary.bounds import BOUNDS
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Duration = Annotated[str, Meta(description='With its unit, like "30s".', pattern=DURATION_PATTERN)]


class ListKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A list that is kept elsewhere: a watched file or a polled URL, one entry a line or a JSON array."""

    file: Annotated[str, Meta(description="A file, read again when it changes.")] | None = None
    url: Annotated[str, Meta(description="An https URL that is polled.")] | None = None
    interval: Duration | None = None
    ca: Annotated[str, Meta(description="PEM file: CAs that the URL's server may also have.")] | None = None


Origins = Annotated[
    list[str] | ListKeys, Meta(description="Pages that may connect; not written: the served host's own pages.")
]
Hosts = Annotated[
    list[str] | ListKeys, Meta(description="Names that are served; not written: those of origins and certificate.")
]
HTTPRule = Annotated[
    Literal["open", "same-policy", "plain"], Meta(description="What plain HTTP under the route is asked.")
]
Size = Annotated[str, Meta(description='With its unit, like "16MiB".', pattern=SIZE_PATTERN)]
Rewrite = Annotated[str, Meta(description='"preserve" (as received), "upstream" (the upstream\'s own), or a value.')]


class RequireKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an identity must hold: all of these."""

    scopes: list[str] | None = None
    groups: list[str] | None = None


class BearerKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[bearer]``: where a bearer token stands."""

    header: Annotated[str, Meta(description="By default Authorization; in another the bare token.")] | None = None


class JWTKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[jwt."ISSUER"]``: one issuer of JWT access tokens, compared exactly."""

    audience: Annotated[list[str], Meta(description="Of which a token must name one.")] | None = None
    jwks: Annotated[str, Meta(description="file:PATH or an https URL; not written: discovery.")] | None = None
    algorithms: Annotated[list[str], Meta(description="That its keys may use.")] | None = None
    typ: Annotated[list[str], Meta(description='Types that count; many providers write "JWT".')] | None = None
    scopes: Annotated[str, Meta(description="The claim that holds the scopes.")] | None = None
    groups: Annotated[str, Meta(description="The claim that holds the groups.")] | None = None
    secret_file: Annotated[str, Meta(description="A file with a secret of 32 bytes or more: HS256.")] | None = None
    missing_claims: (
        Annotated[list[str], Meta(description="iss, aud: of a secret_file issuer that writes none.")] | None
    ) = None


class APIKeysKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[api_keys]``: the file that ``wsguard keys`` writes."""

    file: Annotated[str, Meta(description="The file of hashes.")] | None = None
    header: Annotated[str, Meta(description="Where a key stands.")] | None = None


class AskKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[ask]``: the app says whose cookie it is."""

    url: Annotated[str, Meta(description="An address of the app that tells a user about himself.")] | None = None
    cookies: (
        Annotated[list[str], Meta(description='Cookies that are sent on: names, or one "*" at the end.')] | None
    ) = None
    headers: Annotated[list[str], Meta(description="Fields that are sent on.")] | None = None
    subject: Annotated[str, Meta(description="Member of the answer, like identity.username.")] | None = None
    expires_at: Annotated[str, Meta(description="Member: Unix seconds or RFC 3339.")] | None = None
    scopes: Annotated[str, Meta(description="Member: a list, or a text with spaces.")] | None = None
    sid: Annotated[str, Meta(description="Member: the login session.")] | None = None
    timeout: Duration | None = None
    cache: Duration | None = None
    recheck: Duration | None = None


class ClientCertificateKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[client_certificate]``: whose client certificates count, and which name in one."""

    ca: Annotated[str, Meta(description="PEM file: the CAs whose client certificates count, and no others.")] | None = (
        None
    )
    crl: Annotated[str, Meta(description="PEM file: what those CAs have revoked.")] | None = None
    subject: (
        Annotated[
            Literal["dns", "email", "uri"],
            Meta(description="Which subjectAltName is the subject; there must be exactly one."),
        ]
        | None
    ) = None
    issuer: Annotated[str, Meta(description="The issuer of the identity.")] | None = None


class TicketKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[ticket]``: how tickets are sold."""

    sold_for: Annotated[list[str], Meta(description="What buys one.")] | None = None
    lifetime: (
        Annotated[str, Meta(description='How long one is good, "5s" to "5m".', pattern=DURATION_PATTERN)] | None
    ) = None
    rate: Annotated[int, Meta(description="A minute, an identity.", ge=1)] | None = None
    rate_address: Annotated[int, Meta(description="A minute, an address.", ge=1)] | None = None
    replay_closes: Annotated[bool, Meta(description="A second use closes the first one's socket.")] | None = None
    bind_address: Annotated[bool, Meta(description="It opens only for the address that bought it.")] | None = None


class PolicyKeys(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of a policy. At the top they are the defaults of every route; a route writes only what differs."""

    origins: Origins | None = None
    hosts: Hosts | None = None
    allow_missing_origin: bool | None = None
    allow_null_origin: bool | None = None
    allow_http_loopback_origins: bool | None = None
    allow_pattern_with_ambient: bool | None = None
    auth: Annotated[list[str], Meta(description="What opens the socket, any of them.")] | None = None
    anonymous: Annotated[bool, Meta(description="Nobody is asked who it is; beats an inherited auth.")] | None = None
    require: RequireKeys | None = None
    origin_required: Literal["always", "unless-header-credential"] | None = None
    browsers: Literal["allow", "refuse"] | None = None
    refusal: (
        Annotated[Literal["status", "close"], Meta(description="close tells a browser's script why, by 3000 or 3003.")]
        | None
    ) = None
    close_codes: (
        Annotated[
            Literal["registered", "graphql-transport-ws"],
            Meta(description="graphql-transport-ws sends 4401 and 4403 for 3000 and 3003."),
        ]
        | None
    ) = None
    http: HTTPRule | None = None
    max_message: Size | None = None
    messages_per_second: Annotated[int, Meta(description="Messages of a client a second.", ge=1)] | None = None
    idle: Duration | None = None
    max_lifetime: Duration | None = None


# What a policy of the gateway says to the upstream besides; msgspec knows no second base to keep them in.
Compression = Literal["off", "passthrough"]
GATEWAY_ONLY = ("compression", "upstream_host", "upstream_origin", "forward_credential")
RoutePath = Annotated[str, Meta(description="Exact (/login) or ending in /* (by whole segments); first match counts.")]


class RouteKeys(PolicyKeys, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One ``[[route]]``: a path, exact or ending in ``/*``, and what differs from the defaults."""

    path: RoutePath | None
    compression: Compression | None = None
    upstream_host: Rewrite | None = None
    upstream_origin: Rewrite | None = None
    forward_credential: Annotated[bool, Meta(description="Let the upstream see the header credential.")] | None = None


class RunRouteKeys(PolicyKeys, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One ``[[route]]`` of ``wsguard run``."""

    path: RoutePath | None


def _limit_type(unit: str) -> Any:
    if unit == "count":
        return int | None
    pattern = SIZE_PATTERN if unit == "bytes" else DURATION_PATTERN
    return Optional[Annotated[str, Meta(pattern=pattern)]]  # noqa: UP045 - pyright knows no | on an Annotated value


LimitKeys: Any = msgspec.defstruct(
    "LimitKeys",
    [(bound.key, _limit_type(bound.unit), None) for bound in BOUNDS if bound.table == "limits"],
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
)


class ServedConfig(PolicyKeys, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of every process that serves: its certificate, its log, its bounds, its routes."""

    cert: Annotated[str, Meta(description="PEM file: the certificate and its chain.")] | None = None
    key: Annotated[str, Meta(description="PEM file: the certificate's private key.")] | None = None
    log_format: Literal["text", "json"] | None = None
    public_url: (
        Annotated[str, Meta(description="What a ticket's url is made of; not written: the only host.")] | None
    ) = None
    store: (
        Annotated[str, Meta(description='"memory", or "sqlite:FILE": over restarts, for several processes.')] | None
    ) = None
    workers: (
        Annotated[int, Meta(description="Processes on one port; several need a store on disk.", ge=1, le=256)] | None
    ) = None
    admin: Annotated[str, Meta(description="unix:PATH, a socket for this user's commands.")] | None = None
    outbound: Annotated[list[str], Meta(description="Private networks that outgoing calls may reach.")] | None = None
    outbound_ca: Annotated[str, Meta(description="PEM file: CAs that outgoing calls also trust.")] | None = None
    bearer: BearerKeys | None = None
    jwt: dict[str, JWTKeys] | None = None
    api_keys: APIKeysKeys | None = None
    ask: AskKeys | None = None
    ticket: TicketKeys | None = None
    limits: Any = None
    route: Any = None


class GatewayConfig(ServedConfig, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All keys of ``wsguard gateway``."""

    listen: Annotated[list[str], Meta(description="HOST:PORT, TLS always.")] | None = None
    upstream: Annotated[str, Meta(description="http://HOST:PORT, https://HOST:PORT or unix:PATH.")] | None = None
    compression: Compression | None = None
    upstream_host: Rewrite | None = None
    upstream_origin: Rewrite | None = None
    forward_credential: Annotated[bool, Meta(description="Let the upstream see the header credential.")] | None = None
    upstream_ca: Annotated[str, Meta(description="PEM file: CAs that an https upstream may also have.")] | None = None
    client_certificate: ClientCertificateKeys | None = None
    tls_engine: Literal["aiofastnet", "stdlib"] | None = None
    route: list[RouteKeys] | None = None


class RunConfig(ServedConfig, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All keys of ``wsguard run``."""

    listen: (
        Annotated[str, Meta(description="HOST:PORT is TLS; plain:HOST:PORT and unix:PATH need trusted_proxies.")] | None
    ) = None
    trusted_proxies: (
        Annotated[list[str], Meta(description='Addresses, ranges or "unix": believed in what they say of the client.')]
        | None
    ) = None
    trust_any_proxy: bool | None = None
    route: list[RunRouteKeys] | None = None


_FLAG_NAMES = {"origins": "origin", "hosts": "host", "trusted_proxies": "trusted-proxy"}
_TABLES: dict[str, Any] = {
    "limits": LimitKeys,
    "bearer": BearerKeys,
    "api_keys": APIKeysKeys,
    "ask": AskKeys,
    "client_certificate": ClientCertificateKeys,
    "ticket": TicketKeys,
}
_ROUTES: dict[Any, Any] = {GatewayConfig: RouteKeys, RunConfig: RunRouteKeys}
Config = TypeVar("Config", bound=ServedConfig)
_UNKNOWN_FIELD = re.compile("contains unknown field `([^`]*)`")
_PATHS = ("cert", "key", "upstream_ca", "outbound_ca")


def read_config(path: Path | None, flags: Mapping[str, Any], kind: type[Config] = GatewayConfig) -> Config:
    """
    Read the TOML file at *path* (None: no file) as a *kind* of configuration and lay *flags* over it.

    Relative paths in the file are read from its folder. Raises ConfigurationErrors with all that is wrong.
    """
    config, errors = read_with_errors(path, flags, kind)
    if errors:
        raise ConfigurationErrors(errors)
    return config


def read_with_errors(
    path: Path | None, flags: Mapping[str, Any], kind: type[Config] = GatewayConfig, *, named: str = "--config"
) -> tuple[Config, list[ConfigurationError]]:
    """Read as `read_config` does, but return what could be read and the errors of the rest; *named* gave the path."""
    table = {} if path is None else _read_toml(path, named)
    errors: list[ConfigurationError] = []
    values = _convert_table(table, kind, "", errors)
    if path is not None:
        _resolve_paths(values, path.parent)
    types = _field_types(kind)
    given = {key: _convert_value(value, types[key], flag_of(key), errors) for key, value in flags.items()}
    # Absolute, so that a printed configuration means the same from wherever it is read.
    _resolve_paths(given, Path.cwd())
    values |= given
    return kind(**values), errors


def written_entries(entries: list[str] | ListKeys | None) -> list[str]:
    """Return the entries that are written out; those of a kept list are not known here."""
    return entries if isinstance(entries, list) else []


def flag_of(key: str) -> str:
    """Return the flag that stands for *key*."""
    return "--" + _FLAG_NAMES.get(key, key.replace("_", "-"))


def schema(kind: type[ServedConfig] = GatewayConfig) -> dict[str, Any]:
    """Return the JSON schema of a *kind* of file, for editors (the ``#:schema`` line)."""
    (document,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    (_,), limits = msgspec.json.schema_components([LimitKeys], ref_template="#/$defs/{name}")
    components.update(limits)
    components[kind.__name__]["properties"]["limits"] = {"$ref": "#/$defs/LimitKeys"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wsguard",
        **document,
        "$defs": components,
    }


def render_toml(config: ServedConfig, schema_path: str) -> str:
    """Write *config* as the TOML file that means the same, with the line that tells editors its schema."""
    lines = [f"#:schema {schema_path}"]
    tables: list[str] = []
    for key, value in _written(config).items():
        if key == "route":
            for route in cast("list[dict[str, Any]]", value):
                tables += ["", "[[route]]", *(f"{name} = {_toml(item)}" for name, item in route.items())]
        elif key == "jwt":
            for issuer, keys in cast("dict[str, Any]", value).items():
                tables += ["", f"[jwt.{_toml(issuer)}]", *(f"{name} = {_toml(item)}" for name, item in keys.items())]
        elif key in _TABLES:
            items = cast("dict[str, Any]", value)
            tables += ["", f"[{key}]", *(f"{name} = {_toml(item)}" for name, item in items.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines + tables) + "\n"


def _written(config: ServedConfig) -> dict[str, Any]:
    table = cast("dict[str, Any]", msgspec.to_builtins(config))
    return {key: value for key, value in table.items() if value is not None}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in items.items()) + " }"
    # JSON's strings, numbers, booleans and arrays of them are TOML's too; DEL alone must be escaped besides.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _read_toml(path: Path, named: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(named, f"{path} ({error.strerror})", "a file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(named, f"{path}: {error}", "a TOML file") from None


def _field_types(struct: Any) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _convert_table(
    table: Mapping[str, Any], struct: Any, prefix: str, errors: list[ConfigurationError]
) -> dict[str, Any]:
    # msgspec stops at the first error, and a person wants to know them all: convert value by value.
    types = _field_types(struct)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if key not in types:
            errors.append(_unknown_key(name, key, types, struct))
        elif key in _TABLES and struct in _ROUTES:
            values[key] = _convert_subtable(value, _TABLES[key], name, errors)
        elif key == "jwt" and struct in _ROUTES:
            values[key] = _convert_issuers(value, errors)
        elif key == "route" and struct in _ROUTES:
            values[key] = _convert_routes(value, _ROUTES[struct], errors)
        elif key == "listen" and struct is RunConfig and isinstance(value, list):
            expected = 'one address, listen = "127.0.0.1:8443"; a list stands in a file of `wsguard gateway`'
            errors.append(ConfigurationError(name, _found(value), expected))
        else:
            values[key] = _convert_value(value, types[key], name, errors)
    missing = [field.name for field in msgspec.structs.fields(struct) if field.required and field.name not in table]
    errors += [ConfigurationError(f"{prefix}{name}", "nothing", "a value; it must be written") for name in missing]
    return values


def _convert_subtable(value: Any, struct: Any, name: str, errors: list[ConfigurationError]) -> Any:
    if not isinstance(value, dict):
        errors.append(ConfigurationError(name, _found(value), f"a table: [{name}]"))
        return None
    return struct(**_convert_table(cast("dict[str, Any]", value), struct, f"{name}.", errors))


def _convert_issuers(value: Any, errors: list[ConfigurationError]) -> dict[str, JWTKeys] | None:
    if not isinstance(value, dict) or not all(
        isinstance(item, dict) for item in cast("dict[str, Any]", value).values()
    ):
        errors.append(
            ConfigurationError("jwt", _found(value), 'a table for each issuer: [jwt."https://id.example.com"]')
        )
        return None
    issuers = cast("dict[str, dict[str, Any]]", value)
    return {
        issuer: JWTKeys(**_convert_table(table, JWTKeys, f'jwt."{issuer}".', errors))
        for issuer, table in issuers.items()
    }


def _convert_routes(value: Any, struct: Any, errors: list[ConfigurationError]) -> list[Any] | None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[Any]", value)):
        errors.append(ConfigurationError("route", _found(value), "tables: [[route]]"))
        return None
    if not value:
        errors.append(ConfigurationError("route", "an empty list", "at least one [[route]], or none written: /*"))
    routes: list[Any] = []
    for index, item in enumerate(cast("list[dict[str, Any]]", value), start=1):
        values = _convert_table(item, struct, f"route {index}: ", errors)
        routes.append(struct(**{"path": None, **values}))
    return routes or None


def _convert_value(value: Any, kind: Any, name: str, errors: list[ConfigurationError]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN_FIELD.search(str(error))
        if unknown is not None:
            types = {key: each for part in get_args(kind) for key, each in _fields_of(part).items()}
            errors.append(_unknown_key(f"{name}.{unknown[1]}", unknown[1], types, kind))
            return None
        expected = str(error).removeprefix("Expected ").split(", got", 1)[0].split(" - at", 1)[0]
        errors.append(ConfigurationError(name, _found(value), _form_of(kind) or _readable(expected)))
        return None


def _fields_of(kind: Any) -> dict[str, Any]:
    return _field_types(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else {}


def _form_of(kind: Any) -> str | None:
    # A key whose type has a pattern is a duration or a size, one with a Literal a choice: say so, whatever stood there.
    text = str(kind)
    if "Literal[" in text:
        words = text.partition("Literal[")[2].partition("]")[0]
        return f"one of {words}"
    if "pattern=" not in text:
        return None
    return 'a value with its unit, like "30s"' if "ms|s" in text else 'a size with its unit, like "16MiB"'


def _readable(expected: str) -> str:
    return expected.replace("`", "").replace(" | null", "").replace("str", "text").replace("array", "a list of texts")


def _unknown_key(name: str, key: str, types: dict[str, Any], struct: Any) -> ConfigurationError:
    nearest = nearest_name(key, types)
    if nearest is None and struct not in _ROUTES and key in _field_types(GatewayConfig) | _field_types(RunConfig):
        return ConfigurationError(name, "a key of the whole file", "it above the first [table]")
    if nearest is None and struct is RunConfig and key in _field_types(GatewayConfig):
        return ConfigurationError(name, "a key of the gateway", "it in a file of `wsguard gateway`, which alone has it")
    expected = "a key that there is" if nearest else "one of " + ", ".join(types)
    return ConfigurationError(name, "an unknown key", expected, nearest)


def _found(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004 - one line of a terminal


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    for key in _PATHS:
        if values.get(key):
            values[key] = str(folder / values[key])
    for keys in (values, *(_as_values(route) for route in values.get("route") or ())):
        for key in ("origins", "hosts"):
            entries = keys.get(key)
            if isinstance(entries, ListKeys):
                entries.file = entries.file and str(folder / entries.file)
                entries.ca = entries.ca and str(folder / entries.ca)
    keys_file = values.get("api_keys")
    if isinstance(keys_file, APIKeysKeys) and keys_file.file:
        keys_file.file = str(folder / keys_file.file)
    clients = values.get("client_certificate")
    if isinstance(clients, ClientCertificateKeys):
        clients.ca = clients.ca and str(folder / clients.ca)
        clients.crl = clients.crl and str(folder / clients.crl)
    ask = values.get("ask")
    if isinstance(ask, AskKeys) and ask.url and ask.url.startswith("unix:") and ask.url != "unix:":
        ask.url = "unix:" + str(folder / ask.url.removeprefix("unix:"))
    for issuer in cast("dict[str, JWTKeys]", values.get("jwt") or {}).values():
        if issuer.secret_file:
            issuer.secret_file = str(folder / issuer.secret_file)
        if issuer.jwks and issuer.jwks.startswith("file:"):
            issuer.jwks = "file:" + str(folder / issuer.jwks.removeprefix("file:"))
    store = values.get("store")
    if isinstance(store, str) and store.startswith("sqlite:") and not store.startswith(("sqlite:/", "sqlite::")):
        values["store"] = "sqlite:" + str(folder / store.removeprefix("sqlite:")) if store != "sqlite:" else store
    admin = values.get("admin")
    if isinstance(admin, str) and admin.startswith("unix:") and admin != "unix:":
        values["admin"] = "unix:" + str(folder / admin.removeprefix("unix:"))
    listen = values.get("listen")
    if isinstance(listen, str) and listen.startswith("unix:") and listen != "unix:":
        values["listen"] = "unix:" + str(folder / listen.removeprefix("unix:"))
    upstream = values.get("upstream")
    if isinstance(upstream, str) and upstream.startswith("unix:") and upstream != "unix:":
        values["upstream"] = "unix:" + str(folder / upstream.removeprefix("unix:"))


def _as_values(route: PolicyKeys) -> dict[str, Any]:
    return {"origins": route.origins, "hosts": route.hosts}
