"""`assert_refused` and `assert_accepted` pass for the right policy only, and say what to write where they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.testing.apps import EVIL, ORIGIN, Echo, GuardedEcho
from wsguard import Context, Handshake, Identity, Policy, Refusal, reasons
from wsguard.testing import assert_accepted, assert_refused, handshake
from wsguard.testing.loopback_server import stop_servers


@pytest.fixture(scope="module")
def app() -> Iterator[GuardedEcho]:
    yield GuardedEcho()
    stop_servers()


def failure(assertion: Callable[..., object], app: Any, **arguments: Any) -> list[str]:
    """The lines of the message with which *assertion* fails."""
    with pytest.raises(AssertionError) as raised:
        assertion(app, **arguments)
    return str(raised.value).splitlines()


class TestTheRightPolicyPasses:
    def test_a_foreign_origin_is_refused_for_being_foreign(self, app: GuardedEcho) -> None:
        """Not because the Host is unserved: nobody wrote one, and the guard's own is sent."""
        result = assert_refused(app, origin=EVIL)
        assert (result.status, result.reason) == (403, "origin.not_allowed")
        assert result.hint == f'origins += ["{EVIL}"]'
        assert result.request_id is not None
        assert result.request_id in result.log
        assert result.request_id in result.body

    def test_the_listed_origin_opens_a_socket(self, app: GuardedEcho) -> None:
        result = assert_accepted(app, origin=ORIGIN)
        assert (result.status, result.accepted, result.reason, result.close_code) == (101, True, None, None)

    def test_status_and_reason_can_be_demanded(self, app: GuardedEcho) -> None:
        assert_refused(app, origin=ORIGIN, host="rebound.example", status=421, reason="host.not_allowed")
        assert_refused(app, status=403, reason="origin.missing")

    def test_the_refused_app_heard_nothing(self) -> None:
        app = GuardedEcho()
        assert_refused(app, origin=EVIL)
        assert app.echo.scopes == []
        assert_accepted(app, origin=ORIGIN)
        assert len(app.echo.scopes) == 1


class TestTheWrongPolicyFails:
    def test_a_policy_that_lets_a_stranger_in(self, app: GuardedEcho) -> None:
        lines = failure(assert_refused, app, origin=ORIGIN)
        assert lines[0] == "expected a refusal with 403, but the socket was opened"
        assert lines[1] == f"  sent: GET /ws, Host: app.example.com, Origin: {ORIGIN}"
        assert lines[2].startswith("  log:  session.opened ")
        assert "take it off its origins" in lines[3]

    def test_a_policy_that_keeps_the_own_page_out(self, app: GuardedEcho) -> None:
        """The second time, too, though the log names the setting once a minute only."""
        for _ in range(2):
            lines = failure(assert_accepted, app, origin="https://www.example.com")
            assert lines[0] == "expected an open socket, but it was refused with 403 origin.not_allowed"
            assert "reason=origin.not_allowed" in lines[2]
            assert lines[-1] == '  to allow it, write in the policy: origins += ["https://www.example.com"]'

    def test_another_status(self, app: GuardedEcho) -> None:
        lines = failure(assert_refused, app, origin=EVIL, status=401)
        assert lines[0] == "expected a refusal with 401, but it was refused with 403 origin.not_allowed"
        assert lines[-1] == "  if that is right, write status=403"

    def test_another_reason(self, app: GuardedEcho) -> None:
        lines = failure(assert_refused, app, origin=EVIL, reason="origin.missing")
        assert lines[0].startswith("expected a refusal with 403 origin.missing")
        assert lines[-1] == '  if that is right, write status=403, reason="origin.not_allowed"'

    def test_a_test_that_forgot_the_origin(self, app: GuardedEcho) -> None:
        assert '  a browser always sends one: write origin="https://…" in the test' in failure(assert_accepted, app)

    def test_a_test_with_another_host(self, app: GuardedEcho) -> None:
        lines = failure(assert_accepted, app, origin=ORIGIN, host="other.example")
        assert "  if the app has another name, write it in the test: host=…" in lines


class TestWhatProvesNothingFails:
    """An app answers 403 by itself, too; a test that took it for the policy's would pass without any guard."""

    def test_a_path_that_the_app_does_not_have(self, app: GuardedEcho) -> None:
        lines = failure(assert_refused, app, origin=ORIGIN, path="/missing")
        assert lines[0] == "refused with 403, but not by wsguard"
        assert "has the app a WebSocket route at this path?" in lines[-1]

    def test_an_app_without_a_guard(self) -> None:
        lines = failure(assert_refused, Echo(), origin=EVIL, host="app.example.com", path="/missing")
        assert lines[0] == "refused with 403, but not by wsguard"
        lines = failure(assert_refused, Echo(), origin=EVIL, host="app.example.com")
        assert lines[0] == "expected a refusal with 403, but the socket was opened"
        assert "  no guard judged it: the decision log has no line of it" in lines

    def test_an_app_that_forges_our_text_beside_its_own_log_line(self, app: GuardedEcho) -> None:
        """The guard let it in: what the app then answers counts for nothing."""
        assert not handshake(app, origin=ORIGIN, path="/missing").refused_by_guard

    def test_a_path_that_the_app_refuses_is_not_accepted(self, app: GuardedEcho) -> None:
        lines = failure(assert_accepted, app, origin=ORIGIN, path="/missing")
        assert lines[0] == "expected an open socket, but the app or its server answered 403"
        assert "the guard let it in" in lines[-2]

    def test_an_app_that_raises(self, app: GuardedEcho) -> None:
        lines = failure(assert_accepted, app, origin=ORIGIN, path="/raises")
        assert lines[0] == "expected an open socket, but the app or its server answered 500"
        assert "raised before it accepted" in lines[-1]


class TestWhereverTheLogGoes:
    def test_a_logging_configuration_that_silences_it(self, app: GuardedEcho) -> None:
        """`dictConfig` disables loggers that exist already, by default."""
        logger = logging.getLogger("wsguard.decisions")
        before = (logger.disabled, logger.level, list(logger.handlers))
        logger.disabled = True
        logger.setLevel(logging.CRITICAL)
        try:
            assert assert_refused(app, origin=EVIL).reason == "origin.not_allowed"
            assert (logger.disabled, logger.level) == (True, logging.CRITICAL)
        finally:
            logger.disabled, level = before[:2]
            logger.setLevel(level)
        assert logger.handlers == before[2]

    def test_logging_that_is_off_altogether(self, app: GuardedEcho) -> None:
        """Then the refusal is known by its text, and the reason is not."""
        logging.disable(logging.CRITICAL)
        try:
            result = assert_refused(app, origin=EVIL)
            assert (result.reason, result.log) == (None, "")
            lines = failure(assert_accepted, app, origin=EVIL)
            assert lines[0] == "expected an open socket, but it was refused with 403"
            assert "not wsguard.decisions here" in lines[-1]
        finally:
            logging.disable(logging.NOTSET)


class Login:
    """Knows one cookie."""

    name = "login"
    carriage = "ambient"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        cookie = handshake.fields.first(b"cookie")
        if cookie == b"session=good; theme=dark":
            return Identity("ada", "app", "login")
        return None if cookie is None else Refusal(reasons.CREDENTIAL_INVALID)


@pytest.mark.parametrize("refusal", ["status", "close"])
def test_a_login_by_cookie_is_pinned_however_its_refusal_is_told(refusal: Any) -> None:
    """With ``refusal="close"`` the socket opens and closes at once: that is a refusal, with the same status."""
    app = GuardedEcho(Policy(origins=[ORIGIN], auth=["login"], refusal=refusal), authenticators=[Login()])
    result = assert_accepted(app, origin=ORIGIN, cookies={"session": "good", "theme": "dark"})
    assert result.refused_status is None
    result = assert_refused(app, origin=ORIGIN, cookies={"session": "stolen"}, status=401, reason="credential.invalid")
    assert (result.status, result.close_code) == ((401, None) if refusal == "status" else (101, 3000))
    assert result.request_id is not None
    assert result.request_id in result.log
    assert_refused(app, origin=ORIGIN, status=401)
    assert_refused(app, origin=EVIL, cookies={"session": "good", "theme": "dark"})
    assert app.echo.scopes[0]["wsguard"].identity.subject == "ada"
    assert len(app.echo.scopes) == 1
