from __future__ import annotations

import subprocess
import sys
import time

import pytest

from odtrain.errors import CheckpointError
from odtrain.secrets import forget, masked, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://mlflow:PW@host:5432/mlflow", "postgresql://mlflow:***@host:5432/mlflow"),
        ("postgresql+psycopg2://:PW@host/db", "postgresql+psycopg2://:***@host/db"),
        ("postgresql://u:P/W?#@host/db", "postgresql://u:***@host/db"),
        ("mysql+pymysql://u:P'W\"@host/db", "mysql+pymysql://u:***@host/db"),
        ("postgresql:///db?user=u&password=PW", "postgresql:///db?user=u&password=***"),
        ("http://bob:PW@h/a.jpg?token=T&size=1", "http://bob:***@h/a.jpg?token=***&size=1"),
        ("http://bob:P/W@h/a.jpg", "http://bob:***@h/a.jpg"),
        ("[http://a:8080/x,http://u:PW@b/y]", "[http://a:8080/x,http://u:***@b/y]"),
        ("(rtsp://a/b)(rtsp://u:PW@cam/1)", "(rtsp://a/b)(rtsp://u:***@cam/1)"),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3DPW",
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3D***",
        ),
        ("https://TOKEN@h/x", "https://***@h/x"),
        ("https://TOKEN:@h/x", "https://***@h/x"),
        ("https://TOKEN:x-oauth-basic@h/x", "https://***@h/x"),
        ("https://h/c?sv=1&sig=S", "https://h/c?sv=1&sig=***"),
        (
            "https://h/o?X-Amz-Credential=C&X-Amz-Signature=S&AWSAccessKeyId=K",
            "https://h/o?X-Amz-Credential=***&X-Amz-Signature=***&AWSAccessKeyId=***",
        ),
        ("rtsp://admin:P@W@cam:554/s", "rtsp://admin:***@cam:554/s"),
        ("http:/bob:PW@h/a.jpg", "http://bob:***@h/a.jpg"),
        ("exceeded with url: /a.jpg?token=T (Caused by", "exceeded with url: /a.jpg?token=*** (Caused by"),
        ("m=[https://T@a/x,http://b?key=K]", "m=[https://***@a/x,http://b?key=***]"),
        ("see 'http://u:PW@h/x', or `https://T@h`.", "see 'http://u:***@h/x', or `https://***@h`."),
    ],
)  # fmt: skip
def test_every_form_of_a_secret_is_masked_and_once(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://odtrain@/mlflow?host=/srv/socket",
        "http://host:5000/models:/panels@champion",
        "http://[::1]:5000/x@y",
        "sqlite:////runs/a@b:c.db",
        "http://h/a?keyword=1&monkey=2&page=3",
        '{"a":"http://h","b":"x@y"}',
        "models:/panels@champion and bob:x@example.org",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    "text",
    ["a" * 200_000 + ":/", "?" + "token" * 40_000 + "=", "a://" + "'" * 200_000, "a://b:/" * 30_000],
)  # fmt: skip
def test_a_long_text_is_masked_quickly(text):
    begun = time.process_time()
    masked(text)
    assert time.process_time() - begun < 2


def test_secrets_in_lists_and_mappings_are_masked():
    given = {"zoo": {"mirrors": ["https://T@h", 5]}, "on": True}
    assert without_secrets(given) == {"zoo": {"mirrors": ["https://***@h", 5]}, "on": True}


def test_an_error_shows_no_secret_of_what_it_speaks_of():
    error = CheckpointError("https://T@h/a", "gave no http://u:PW@h", "Look at http://h?sig=S")
    assert str(error) == "https://***@h/a: gave no http://u:***@h\n  Look at http://h?sig=***"


def test_errors_of_others_are_masked_down_to_the_first():
    first = ValueError("http://u:PW@h", 5)
    second = KeyError("https://T@h")
    second.__cause__ = first
    forget(second)
    assert (first.args, second.args) == (("http://u:***@h", 5), ("https://***@h",))


def test_a_traceback_that_nobody_catches_shows_no_secret():
    program = (
        "from odtrain.secrets import hide_in_tracebacks as h; h(); int('http://u:PASS'+'WORD@h')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "http://u:***@h" in done.stderr
    assert "PASSWORD" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_list_of_processes_shows_no_secret_of_a_command_line():
    program = (
        "from odtrain.secrets import hide_arguments; hide_arguments();"
        "print(open('/proc/self/cmdline').read().replace(chr(0), ' '))"
    )
    uri = "--database=postgresql://u:PASSWORD@h/db"
    done = subprocess.run([sys.executable, "-c", program, uri, "x"], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("--database=postgresql://u:***@h/db x")
