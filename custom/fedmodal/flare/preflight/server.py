"""The way to the server: its name, its port, and TLS in both directions."""

import errno
import socket
import ssl
from collections.abc import Iterator

from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed
from fedmodal.flare.preflight.process import runs

TIMEOUT = 5.0  # seconds
GREETING = 1.0  # seconds that a server has to refuse our certificate, or to say hello

_OTHER_NAME = {62, 64}  # OpenSSL: the certificate is for another host name, another address
_OTHER_TIME = {9, 10}  # OpenSSL: not yet valid, ended


def server(kit: Kit) -> Iterator[Finding]:
    """Whether the server answers by its name over TLS, trusted by us, and trusting us."""
    host, port = kit.address
    if kit.role == "server":
        yield _own_port(kit, port)
        return
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        remedy = "ask your network's people to make the name known, or add it to /etc/hosts"
        yield failed("server", f"the name {host} does not resolve", remedy)
        return
    yield _connect(kit, host, port)


def _own_port(kit: Kit, port: int) -> Finding:
    if runs(kit):
        return passed("port", f"{port} is this server's, which is running")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return failed(
                "port", f"{port}: {error.strerror}", f"end what holds it: ss -ltnp 'sport = :{port}'"
            )
    return passed("port", f"{port} is free")


def _connect(kit: Kit, host: str, port: int) -> Finding:
    where = f"{host}:{port}"
    try:
        plain = socket.create_connection((host, port), TIMEOUT)
    except ConnectionRefusedError:
        return failed("server", f"{where}: refused", "ask whether the server runs, and on that port")
    except TimeoutError:
        remedy = f"let outbound TCP to {where} through your firewall"
        return failed("server", f"{where}: no answer in {TIMEOUT:.0f} s; something filters it", remedy)
    except OSError as error:
        return failed("server", f"{where}: {error.strerror}", _remedy(error, where))
    with plain:
        return _handshake(kit, plain, host, where)


def _remedy(error: OSError, where: str) -> str:
    if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return f"ask your network's people for a way to {where}"
    return "ask whether the server runs"


def _handshake(kit: Kit, plain: socket.socket, host: str, where: str) -> Finding:
    context = ssl.create_default_context(cafile=str(kit.authority))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*kit.credentials)
    try:
        secure = context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return failed("server", *_distrust(error, host, where))
    except TimeoutError:
        return failed("server", f"{where}: no TLS in {TIMEOUT:.0f} s", "ask whether the server runs there")
    except OSError as error:  # what is no TLS, and a connection that ends
        reason = getattr(error, "reason", None) or error.strerror
        return failed("server", f"{where}: no TLS ({reason})", "ask whether the server runs there")
    with secure:
        return _greeting(secure, where)


def _distrust(error: ssl.SSLCertVerificationError, host: str, where: str) -> tuple[str, str]:
    """Message and remedy for a server that our authority does not vouch for."""
    if error.verify_code in _OTHER_NAME:
        remedy = f"ask the project's admins for a server certificate that names {host}"
        return f"{where}: its certificate is not for the name {host}", remedy
    if error.verify_code in _OTHER_TIME:
        remedy = "look at this machine's clock, then ask the project's admins"
        return f"{where}: {error.verify_message}", remedy
    remedy = "the kit is of another project, or something on the way opens TLS: ask for an exception"
    return f"{where}: certificate of another authority ({error.verify_message})", remedy


def _greeting(secure: ssl.SSLSocket, where: str) -> Finding:
    """With TLS 1.3 a server refuses a client's certificate only after the handshake."""
    secure.settimeout(GREETING)
    spoken = secure.version()
    try:
        secure.recv(1)
    except TimeoutError:
        pass  # it has nothing to say, and nothing against us
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        message = f"{where}: the server does not accept this kit's certificate ({reason})"
        return failed("server", message, "ask the project's admins for a new kit")
    return passed("server", f"{where} answers over {spoken}, certificate of the project")
