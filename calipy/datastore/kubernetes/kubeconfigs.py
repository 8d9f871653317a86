"""Kubeconfigs (client.config.k8s.io v1), one or several: read, merged, and what their current context says.

Programs that fetch tokens (`exec`) and auth providers are the official client's business: it is imported when one is
met.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from calipy.datastore.kubernetes import tls
from calipy.datastore.kubernetes.credentials import Credentials
from calipy.datastore.kubernetes.tokens import Authorization, Fixed, TokenFile
from calipy.datastore.stores import Unavailable

T = TypeVar("T", bound=Struct)


class Cluster(Struct, frozen=True, gc=False, kw_only=True, rename="kebab"):
    """A server."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""


class User(Struct, frozen=True, gc=False, kw_only=True, rename="kebab"):
    """An identity."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    impersonate: str = field(name="as", default="")
    exec: dict[str, Any] | None = None
    auth_provider: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return "User(...)"


class Context(Struct, frozen=True, gc=False, kw_only=True):
    """Who speaks to which server."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(Struct, frozen=True, gc=False):
    name: str
    cluster: Cluster


class _NamedUser(Struct, frozen=True, gc=False):
    name: str
    user: User


class _NamedContext(Struct, frozen=True, gc=False):
    name: str
    context: Context


class _File(Struct, frozen=True, gc=False, kw_only=True, rename="kebab"):
    current_context: str | None = ""
    clusters: tuple[_NamedCluster, ...] | None = ()
    users: tuple[_NamedUser, ...] | None = ()
    contexts: tuple[_NamedContext, ...] | None = ()


class Merged(Struct, frozen=True, gc=False, kw_only=True):
    """What several files say together: of what two name the same, the first holds (kubectl's rule)."""

    current: str
    clusters: dict[str, Cluster]
    users: dict[str, User]
    contexts: dict[str, Context]
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return f"kubeconfig {':'.join(map(str, self.paths))}"


def from_files(paths: Sequence[Path], *, must_exist: bool = False) -> Credentials:
    """What the current context of kubeconfigs says. Those that aren't there are passed over, unless they must exist;
    one has to. Raises Unavailable, naming file and field."""
    found = [path for path in paths if must_exist or path.exists()]
    if not found:
        shown = ", ".join(map(str, paths))
        remedy = "name one with KUBECONFIG or --kubeconfig, or run in a pod that has a service account"
        raise Unavailable(f"kubeconfig {shown}: is not there; {remedy}")
    return _credentials(merged(found))


def merged(paths: Iterable[Path]) -> Merged:
    """Reads and merges. File names in them are relative to the file that names them. Raises Unavailable."""
    current = ""
    clusters: dict[str, Cluster] = {}
    users: dict[str, User] = {}
    contexts: dict[str, Context] = {}
    read = tuple(paths)
    for path in read:
        file = _read(path)
        current = current or file.current_context or ""
        for each in file.clusters or ():
            clusters.setdefault(each.name, _beside(path, each.cluster, ("certificate_authority",)))
        for one in file.users or ():
            names = ("client_certificate", "client_key", "token_file")
            users.setdefault(one.name, _beside(path, one.user, names))
        for other in file.contexts or ():
            contexts.setdefault(other.name, other.context)
    return Merged(current=current, clusters=clusters, users=users, contexts=contexts, paths=read)


def _read(path: Path) -> _File:
    import yaml

    try:
        return msgspec.convert(yaml.load(path.read_bytes(), yaml.CSafeLoader) or {}, _File)
    except OSError as error:
        raise Unavailable(f"kubeconfig {path}: can't be read: {error.strerror}; name another one") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Never the text around the mistake: it may be a key.
        mark = getattr(error, "problem_mark", None)
        reason = f"is no YAML: line {mark.line + 1}" if mark else str(error) if _is_ours(error) else "is no YAML"
        raise Unavailable(f"kubeconfig {path}: {reason}; mend it, or name another one") from None


def _is_ours(error: BaseException) -> bool:
    """msgspec names types and paths, no values."""
    return isinstance(error, msgspec.ValidationError)


def _beside(path: Path, value: T, names: Iterable[str]) -> T:
    files = {name: getattr(value, name) for name in names}
    return msgspec.structs.replace(
        value, **{name: str(path.absolute().parent / file) for name, file in files.items() if file}
    )


def _credentials(config: Merged) -> Credentials:
    if not config.current:
        raise Unavailable(f"{config}: has no current-context; choose one with `kubectl config use-context`")
    context = _named(config, "context", config.contexts, config.current)
    cluster = _named(config, "cluster", config.clusters, context.cluster)
    user = _named(config, "user", config.users, context.user) if context.user else User()
    source = f"{config}, context {config.current}"
    _refuse_what_we_cannot(source, cluster, user)
    if user.exec or user.auth_provider:
        from calipy.datastore.kubernetes.plugins import fetched

        authorization, certificate, key = fetched(source, config.paths, config.current)
    else:
        authorization = _authorization(user)
        certificate = _pem(source, "client-certificate-data", user.client_certificate, user.client_certificate_data)
        key = _pem(source, "client-key-data", user.client_key, user.client_key_data)
    data = cluster.certificate_authority_data
    return Credentials(
        source=source,
        server=cluster.server.rstrip("/"),
        authorization=authorization,
        tls=tls.context(
            source,
            authority=_pem(source, "certificate-authority-data", cluster.certificate_authority, data),
            insecure=cluster.insecure_skip_tls_verify,
            certificate=certificate,
            key=key,
        )
        if cluster.server.startswith("https://")
        else None,
        server_name=cluster.tls_server_name,
        proxy=cluster.proxy_url,
        namespace=context.namespace or "default",
    )


def _named(config: Merged, what: str, known: dict[str, T], name: str) -> T:
    if name not in known:
        shown = ", ".join(sorted(known)) or "none"
        raise Unavailable(f"{config}: {what} {name!r} is not in it; it has {shown}: mend the context {config.current}")
    return known[name]


def _refuse_what_we_cannot(source: str, cluster: Cluster, user: User) -> None:
    if not cluster.server.startswith(("https://", "http://")):
        raise Unavailable(f"{source}: server {cluster.server!r} is no URL; write https://host:port")
    if cluster.proxy_url and not cluster.proxy_url.startswith("http://"):
        scheme = cluster.proxy_url.partition(":")[0]
        raise Unavailable(f"{source}: proxy-url: a proxy that speaks {scheme} can't be used; name one of http://")
    if user.impersonate:
        raise Unavailable(f"{source}: `as` is not supported; use credentials of {user.impersonate!r} itself")


def _authorization(user: User) -> Authorization:
    """Of several the one that kubectl takes."""
    if user.token_file:
        return TokenFile(Path(user.token_file))
    if user.token:
        return Fixed(f"Bearer {user.token}")
    if user.username:
        return Fixed("Basic " + base64.b64encode(f"{user.username}:{user.password}".encode()).decode())
    return Fixed()


def _pem(source: str, name: str, path: str, data: str) -> tls.Pem:
    """The text goes before the file."""
    if not data:
        return tls.Pem(path)
    try:
        return tls.Pem(text=base64.b64decode(data, validate=True))
    except binascii.Error:
        raise Unavailable(f"{source}: {name} is no base64; write it anew") from None
