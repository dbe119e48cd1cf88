"""Numbers in words: the same words for the same number, wherever it is shown."""

from __future__ import annotations

import pytest

from wtio import _words
from wtio._core import CloseCause


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "close_notify"),
        (21, "decryption_failed"),
        (30, "decompression_failure"),
        (41, "no_certificate"),
        (42, "bad_certificate"),
        (52, "too_many_cids_requested"),
        (60, "export_restriction"),
        (100, "no_renegotiation"),
        (111, "certificate_unobtainable"),
        (114, "bad_certificate_hash_value"),
        (116, "certificate_required"),
        (117, "general_error"),
        (120, "no_application_protocol"),
        (121, "ech_required"),
        (250, "unknown"),
    ],
)
def test_alerts_have_their_names(code: int, name: str) -> None:
    assert _words.alert_name(code) == f"{name} (TLS alert {code})"


def test_alerts_that_speak_of_certificates() -> None:
    spoken = {code for code in range(256) if _words.is_about_certificate(code)}
    assert spoken == {41, 42, 43, 44, 45, 46, 48, 49, 51, 113, 114, 116}


def test_a_transport_error_that_is_an_alert_has_its_name() -> None:
    words = _words.loss_in_words(_words.Loss(CloseCause.TRANSPORT, 0x100 + 45, ""), idle=30)
    assert words == "the peer's QUIC stack closed the connection with certificate_expired (TLS alert 45)"


def test_an_end_before_the_handshake_was_complete_names_the_usual_causes() -> None:
    words = _words.loss_in_words(_words.Loss(CloseCause.TRANSPORT, 0xC, ""), idle=30)
    assert "before the handshake was complete" in words
    assert "takes too long" in words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "it redirects to elsewhere, which WebTransport never follows"),
        (403, "the server does not allow this origin or client; see the `origin` and `headers` parameters"),
        (404, "there is no WebTransport at this path; check the path of the URL"),
        (429, "the server has as many sessions as it wants; try again later, or raise its limit"),
        (418, ""),
    ],
)
def test_statuses_have_one_meaning(status: int, words: str) -> None:
    assert _words.status_hint(status) == words


def test_dates_that_no_calendar_has_are_numbers() -> None:
    assert _words.date(0) == "1970-01-01 00:00 UTC"
    assert _words.date(2**80) == f"Unix time {2**80}"
