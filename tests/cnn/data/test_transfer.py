"""One file from one address: patience, time limits, proxies and certificates."""

import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cnn.data import download
from cnn.data.download import Deadline, Wanted
from cnn.errors import UnreachableError
from tests.hosts import IMAGES, Server, serving


def said(url: str, wanted: Wanted, target: Path, seconds: float = 20) -> str:
    """Return what a transfer that fails says; the folder stays empty."""
    with download.client() as client, pytest.raises(download.ERRORS) as caught:
        download.transfer(client, url, wanted, target, Deadline.after(seconds))
    assert list(target.parent.iterdir()) == []
    return download.reason(caught.value)


def test_a_server_that_says_when_to_come_back_is_asked_then(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], sleeps: list[float]
) -> None:
    """Retry-After is honoured; without it the pauses grow."""
    with download.client() as client:
        for url in (address + IMAGES for address in server.at("patient", "busy")):
            download.transfer(client, url, wanted[IMAGES], tmp_path / IMAGES, Deadline.after(20))
    assert sleeps == [3, 1, 2]


def test_nobody_waits_beyond_the_deadline_for_a_busy_server(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], sleeps: list[float]
) -> None:
    """One that asks for more time than there is leaves it to the other addresses."""
    for place, seconds in (("tomorrow", 20), ("patient", 2.5), ("overloaded", 0.9)):
        assert "HTTP" in said(
            server.at(place)[0] + IMAGES, wanted[IMAGES], tmp_path / IMAGES, seconds
        )
    assert sleeps == []


def test_a_name_server_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for a host's name knows no time limit, so the transfer goes on without it."""
    answer = threading.Event()

    def hang(*_: object, **__: object) -> None:
        answer.wait(20)
        raise socket.gaierror("no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(download, "GRACE_SECONDS", 0.1)
    started = time.monotonic()
    words = said(f"http://host.example/{IMAGES}", wanted[IMAGES], tmp_path / IMAGES, 0.2)
    answer.set()
    assert time.monotonic() - started < 2
    assert words == "no answer in the time there was"


def test_a_server_that_says_nothing_is_left(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection alone is no answer."""
    monkeypatch.setattr(download, "READ_SECONDS", 0.1)
    words = said(server.at("silent")[0] + IMAGES, wanted[IMAGES], tmp_path / IMAGES)
    assert "timed out" in words
    assert server.asked == {"silent": 1}


def test_a_server_that_drips_is_left_at_the_limit_and_called_slow(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """A byte now and then keeps a connection, but not a download."""
    server.piece, server.pause = 10, 0.05
    words = said(server.at("drip")[0] + IMAGES, wanted[IMAGES], tmp_path / IMAGES, 0.4)
    assert words.startswith("too slow: ")


def test_a_dead_proxy_is_named_without_its_password(
    tmp_path: Path, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads that the connection was refused must know whose."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    words = said(f"http://host.example/{IMAGES}", wanted[IMAGES], tmp_path / IMAGES)
    assert "refused" in words
    assert "(the environment sends this through the proxy 127.0.0.1:9)" in words
    assert "secret" not in words
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    words = said(f"http://127.0.0.1:9/{IMAGES}", wanted[IMAGES], tmp_path / IMAGES)
    assert "refused" in words
    assert "proxy" not in words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "gopher://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
    ],
)
def test_settings_of_the_environment_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A kind of proxy that we do not know, or certificates that are not there."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UnreachableError, match="proxies or certificates cannot be used") as caught:
        download.client()
    assert name in str(caught.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS settings with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_that_nobody_vouches_for_is_named(
    tmp_path: Path,
    wanted: dict[str, Wanted],
    bodies: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sits between may send anything, so nothing is taken from there."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "data").mkdir()
    with serving(bodies) as server:
        server.socket = self_signed(tmp_path).wrap_socket(server.socket, server_side=True)
        url = server.at("good")[0].replace("http:", "https:") + IMAGES
        words = said(url, wanted[IMAGES], tmp_path / "data" / IMAGES)
    assert "CERTIFICATE_VERIFY_FAILED" in words
    assert server.asked == {}


@pytest.mark.parametrize(
    "url", ["http://[::1]:9/", "http://no-such-host.invalid/", "no-address/", "ftp://host.example/"]
)
def test_an_address_that_leads_nowhere_is_an_answer(
    tmp_path: Path, wanted: dict[str, Wanted], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such host, nobody at the port, no such protocol: words, not a traceback."""
    monkeypatch.setenv("NO_PROXY", "*")
    assert said(url + IMAGES, wanted[IMAGES], tmp_path / IMAGES)


def test_nobody_is_asked_when_the_time_is_over(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """The answer says so, in place of an error of the socket."""
    words = said(server.at("good")[0] + IMAGES, wanted[IMAGES], tmp_path / IMAGES, 0)
    assert words == "no time was left"
    assert not server.asked


def test_a_deadline_runs_out() -> None:
    """The time left falls to 0 and no further."""
    assert 4 < Deadline.after(5).left <= 5
    assert Deadline.after(-1).left == 0
