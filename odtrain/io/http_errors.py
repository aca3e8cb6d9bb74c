"""Why an address gave nothing, in a few words; requests' own text is a nest of object addresses."""

from __future__ import annotations

import requests

from odtrain_runtime.plain import plain

LONGEST_REASON = 100
"""Letters of what a server says."""
UNTRUSTED = "its certificate is not trusted"
UNKNOWN_HOST = "its host is not known"
NO_ANSWER = "the server does not answer"
BROKE_OFF = "the connection broke off"

WORDS: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.SSLError, UNTRUSTED),
    (requests.Timeout, NO_ANSWER),
    (TimeoutError, NO_ANSWER),
    (requests.exceptions.ChunkedEncodingError, BROKE_OFF),
    (requests.TooManyRedirects, "the server redirects without end"),
    (requests.ConnectionError, "no connection to the server"),
)
"""The first that fits says it."""


def reason(error: Exception, otherwise: str) -> str:
    """Why a request failed; `otherwise` where nothing is known of such an error."""
    response = getattr(error, "response", None)
    if response is not None:
        return status(response)
    if "NameResolution" in repr(error):
        return UNKNOWN_HOST
    if "timed out" in str(error).lower():
        return NO_ANSWER
    return next((words for kind, words in WORDS if isinstance(error, kind)), otherwise)


def status(answer: requests.Response) -> str:
    """What a server said instead."""
    return f"the server answered {answer.status_code} {plain(answer.reason)[:LONGEST_REASON]}"
