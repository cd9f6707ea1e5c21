"""What every error has in common."""

import json

from cnn.errors import DataError


def test_a_message_is_text_whatever_a_file_is_called() -> None:
    """Bytes of a name that are no UTF-8 are shown as escapes: no log and no JSON fails on them."""
    error = DataError("/data/\udcff-ä: the file is empty")
    assert str(error) == "/data/\\udcff-ä: the file is empty"
    assert json.dumps(str(error), ensure_ascii=False).encode()
