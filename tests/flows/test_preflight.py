"""The data of a command are checked before a run starts, and a run warns about them once."""

from pathlib import Path

import pytest

from cnn.errors import ServerError
from flows import cli, local_run
from tests.cnn.data import inputs


def exit_code(verb: str, data: Path, store: Path) -> object:
    """Return how a command ends that uses the images in `data`."""
    options = ["--data.source", "folder", "--data.path", str(data), "--store", str(store)]
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, *options])
    return ended.value.code


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_bad_images_are_refused_before_anything_is_written(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 and one message that names the file; no flow starts."""
    monkeypatch.setattr(local_run, "train_and_explain", lambda *_: pytest.fail("a run was started"))
    data = inputs.class_folders(tmp_path / "data", 3)
    (data / "left/0.png").write_bytes(b"")
    assert exit_code(verb, data, tmp_path / "artifacts") == 3
    error = f"error: {data}/left/0.png: the file is empty; an image is expected\n"
    assert capsys.readouterr().err == error
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_the_check_before_a_run_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run warns once, in its own log; a plan warns too."""

    def begin(*_: object) -> None:
        assert caplog.messages == []
        raise ServerError("far enough")

    monkeypatch.setattr(local_run, "train_and_explain", begin)
    for i in range(6):
        content = inputs.encoded(255 - inputs.glyph(i))
        inputs.write_files(tmp_path / "data", {f"{label}/{i}.png": content for label in "ab"})
    for verb, code, n_warnings in (("run", 1, 0), ("plan", 0, 1)):
        assert exit_code(verb, tmp_path / "data", tmp_path / "artifacts") == code
        assert len(caplog.messages) == n_warnings
