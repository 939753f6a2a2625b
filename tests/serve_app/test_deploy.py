"""What is checked before anything starts."""

import socket

import pytest

from perso.errors import InputError
from serve_app.deploy import require_free_port


def test_a_taken_port_is_named_and_a_free_one_passes():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*give another"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)  # the check itself takes nothing
