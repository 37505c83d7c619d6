"""stages.lib.core.environment: what would stop a library as soon as it is imported."""

import os

import pytest

from stages.lib.core import environment


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("HF_ENDPOINT", "localhost:80", "an address such as https://huggingface.co"),
        ("HF_ENDPOINT", "http://[::1", "an address such as https://huggingface.co"),
        ("HF_ENDPOINT", "http://hub:port", "an address such as https://huggingface.co"),
        ("HF_ENDPOINT", "", "an address such as https://huggingface.co"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5", "a whole number of seconds"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon", "a whole number of seconds"),
    ],
)
def test_a_mistake_is_taken_out_and_named(monkeypatch, name, value, wanted):
    monkeypatch.setenv(name, value)
    assert environment.take_out_mistakes() == [
        f"environment variable {name}: {value!r} is wrong: it should be {wanted}"
    ]
    assert name not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "https://hub.example.org/mirror/"),
        ("HF_ENDPOINT", "http://[::1]:8080"),
        ("HF_HUB_ETAG_TIMEOUT", "30"),
    ],
)
def test_what_is_right_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert environment.take_out_mistakes() == []
    assert os.environ[name] == value
