"""The way to a real TLS server."""

import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmodal.flare.preflight import (
    server,
)
from fedmodal.flare.preflight.finding import Status, open_kit
from tests.flare.preflight import found
from tests.kits import SERVER, local_project, provision

Listen = Callable[..., None]


@pytest.fixture
def listening(kit: Path) -> Iterator[Listen]:
    """`listening(startup)`: a TLS server with that server kit's certificate, where the site expects it.

    It asks for a client's certificate of `authority`, by default its own.
    """
    ends: list[socket.socket] = []

    def listen(startup: Path, authority: Path | None = None) -> None:
        trusted = authority or startup / "rootCA.pem"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(startup / "server.crt", startup / "server.key")
        plain = socket.create_server(("127.0.0.1", open_kit(kit).address[1]))
        ends.append(plain)
        threading.Thread(target=serve, args=(plain, context), daemon=True).start()

    yield listen
    for end in ends:
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a client
        end.close()


def serve(plain: socket.socket, context: ssl.SSLContext) -> None:
    try:
        while True:
            client, _ = plain.accept()
            try:
                context.wrap_socket(client, server_side=True).close()
            except (ssl.SSLError, OSError):
                client.close()
    except OSError:
        return  # the test has ended


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The server's startup folder of another provisioning."""
    return provision(local_project(tmp_path), tmp_path) / SERVER / "startup"


def move_server(kit: Path, host: str) -> None:
    """Let the kit look for its server elsewhere."""
    config = kit / "startup" / "fed_client.json"
    config.write_text(config.read_text().replace('"localhost:', f'"{host}:'))


def test_a_server_that_answers(kits: Path, kit: Path, listening: Listen) -> None:
    listening(kits / SERVER / "startup")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.PASS, finding
    assert "TLSv1" in finding.message


def test_a_server_of_another_authority(kit: Path, others: Path, listening: Listen) -> None:
    listening(others)
    assert "certificate of another authority" in found(server.server, kit)["server"].message


def test_a_server_that_does_not_accept_our_certificate(
    kits: Path, kit: Path, others: Path, listening: Listen
) -> None:
    listening(kits / SERVER / "startup", others / "rootCA.pem")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.FAIL
    assert "does not accept this kit's certificate" in finding.message


def test_a_server_certificate_for_another_name(kits: Path, kit: Path, listening: Listen) -> None:
    move_server(kit, "127.0.0.1")  # FLARE's gRPC refuses this too
    listening(kits / SERVER / "startup")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.FAIL
    assert "not for the name 127.0.0.1" in finding.message


def test_a_server_that_is_not_there(kit: Path) -> None:
    finding = found(server.server, kit)["server"]
    assert (finding.status, finding.message.endswith(": refused")) == (Status.FAIL, True)


def test_a_server_that_is_filtered_and_one_that_speaks_no_tls(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TIMEOUT", 0.2)
    host, port = open_kit(kit).address
    with socket.create_server(("127.0.0.1", port), backlog=0) as silent:
        assert "no TLS in" in found(server.server, kit)["server"].message
        silent.accept()[0].close()
        # A queue of connections that nobody accepts is full after the first: the next gets no answer.
        with socket.create_connection((host, port)):
            finding = found(server.server, kit)["server"]
    assert "something filters it" in finding.message
    assert f"let outbound TCP to localhost:{port} through" in finding.remedy


def test_a_name_that_does_not_resolve(kit: Path) -> None:
    move_server(kit, "no-such-host.invalid")
    assert "does not resolve" in found(server.server, kit)["server"].message


def test_the_servers_own_port(kits: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits / SERVER, tmp_path / "server"))
    assert found(server.server, kit)["port"].status is Status.PASS
    with socket.create_server(("", open_kit(kit).address[1])):
        assert found(server.server, kit)["port"].status is Status.FAIL
