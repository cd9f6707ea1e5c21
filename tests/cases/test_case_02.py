"""Case 02: a bad body was stored under the right name and is found there later."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.data import idx_folder, published, sources
from cnn.errors import UnreachableError
from tests import hosts
from tests.hosts import JSON, PAGE, Server

MNIST = DataConfig(source="mnist")
Spoil = Callable[[bytes], bytes]

# What became of a body, and what is said of it.
FAULTS: dict[str, tuple[Spoil, str]] = {
    "html": (lambda body: PAGE, "HTML page"),
    "html after spaces": (lambda body: b"\r\n  " + PAGE.upper(), "HTML page"),
    "html in utf-8": (lambda body: b"\xef\xbb\xbf" + PAGE, "HTML page"),
    "packed html": (lambda body: gzip.compress(PAGE * 9), "not an IDX file"),
    "json": (lambda body: JSON, "this is text"),
    "empty": (lambda body: b"", "empty"),
    "packed nothing": (lambda body: gzip.compress(b""), "cut off"),
    "one byte": (lambda body: body[:1], "cut off"),
    "in the gzip header": (lambda body: body[:5], "cut off"),
    "cut at 60 %": (lambda body: body[: len(body) * 6 // 10], "cut off"),
    "without its last byte": (lambda body: body[:-1], "cut off"),
    "unpacked and cut": (lambda body: gzip.decompress(body)[:-1], "cut off"),
    "wrong crc": (lambda body: body[:-8] + bytes(4) + body[-4:], "checksum"),
    "wrong length": (lambda body: body[:-4] + bytes(4), "checksum"),
    "a byte flipped": (lambda body: body[:40] + bytes([body[40] ^ 255]) + body[41:], ""),
    "zeros at the end": (lambda body: body[: len(body) // 2] + bytes(len(body) // 2), ""),
    "too long": (lambda body: gzip.compress(gzip.decompress(body) + b"\0"), "holds more"),
}


def cache(downloads: Path, server: Server, role: str, spoil: Spoil) -> Path:
    """Put the files into the downloads, one of them spoilt; return the path of that one."""
    hosts.written(downloads / "mnist", hosts.small_set())
    path = downloads / "mnist" / published.FILE_NAMES[role]
    path.write_bytes(spoil(server.bodies[path.name]))
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_set_aside_and_fetched_again_once(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """The arrays are the good ones, the log says what was wrong, the rest is not fetched."""
    spoil, reason = FAULTS[fault]
    path = cache(tmp_path, server, "train-images", spoil)
    dataset = sources.load(sources.identify(MNIST, tmp_path), MNIST)
    train = dataset.splits["train"]
    np.testing.assert_array_equal(
        train.images[..., 0], hosts.small_set()["train-images"][train.ids]
    )
    assert path.read_bytes() == server.bodies[path.name]
    assert sum(server.asked.values()) == 1
    assert f"{path}: " in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize("role", idx_folder.ROLES)
@pytest.mark.parametrize("fault", ["html", "empty", "cut at 60 %", "wrong crc"])
def test_offline_it_is_refused_with_its_reason(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, role: str
) -> None:
    """Whichever of the four files it is, the second run says the same as the first."""
    spoil, reason = FAULTS[fault]
    path = cache(tmp_path, server, role, spoil)
    hosts.patch_set(monkeypatch, "mnist", addresses=("http://127.0.0.1:9/",))
    for _ in range(2):
        with pytest.raises(UnreachableError, match=rf"{path}\.bad: .*{reason}") as caught:
            sources.load(sources.identify(MNIST, tmp_path), MNIST)
        assert (PAGE.decode()[:80] in str(caught.value)) == (fault == "html")
        assert not path.exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_again_it_is_refused_and_not_kept(tmp_path: Path, server: Server, fault: str) -> None:
    """No body gets the final name before it was verified, whatever is wrong with it."""
    spoil, reason = FAULTS[fault]
    path = cache(tmp_path, server, "test-labels", spoil)
    server.bodies[path.name] = path.read_bytes()
    with pytest.raises(UnreachableError, match=f"/good/{path.name}: .*{reason}"):
        sources.load(sources.identify(MNIST, tmp_path), MNIST)
    assert not path.exists()
    assert not list(path.parent.glob(".*"))


@pytest.mark.slow
def test_the_command_refuses_an_html_page_offline(tmp_path: Path, server: Server) -> None:
    """The first 80 characters of the page are shown; no artifact is made."""
    store = tmp_path / "artifacts"
    cache(store / "downloads", server, "train-images", FAULTS["html"][0])
    said = hosts.refused_by_the_command(
        store, published.SETS["mnist"].sha256, ["http://127.0.0.1:9/"]
    )
    assert "this is an HTML page, not an IDX file" in said
    assert PAGE.decode()[:80] in said
