"""Tokens: hashed, several, taken back while the server runs; and who may listen where."""

import base64
import os
import stat

import pytest
from typer.testing import CliRunner

from palate.cli import app
from palate.serve import auth
from palate.serve.app import check_exposure
from palate.serve.auth import Tokens, add_token, revoke_token, token_dates
from palate.serve.settings import Settings
from palate.types import PalateError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens"


def test_a_token_lets_its_holder_in_and_is_nowhere_in_the_file(file):
    token = add_token(file, "trainer")
    assert Tokens(file).holder(f"Bearer {token}") == "trainer"
    assert token not in file.read_text()
    assert token.removeprefix("palate_") not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_several_tokens_are_added_and_revoked_while_a_server_reads_them(file):
    first = add_token(file, "first")
    tokens = Tokens(file)
    second = add_token(file, "second")
    assert [tokens.holder(f"Bearer {t}") for t in (first, second)] == ["first", "second"]
    revoke_token(file, "first")
    assert [tokens.holder(f"Bearer {t}") for t in (first, second)] == [None, "second"]
    file.unlink()
    assert tokens.holder(f"Bearer {second}") is None
    third = add_token(file, "third")
    assert tokens.holder(f"Bearer {third}") == "third"


@pytest.mark.parametrize(
    "offered",
    ["", "Bearer", "Bearer ", "Bearer palate_x", "Basic", "Basic !!", "Digest x", "\udcff \udcff"],
)
def test_anything_else_lets_nobody_in(file, offered):
    token = add_token(file, "one")
    tokens = Tokens(file)
    assert tokens.holder(offered) is None
    assert tokens.holder(token) is None, "without a scheme"
    assert tokens.holder(f"Bearer {token}x") is None


def test_a_client_that_sets_no_header_has_it_as_the_password_of_its_address(file):
    token = add_token(file, "one")
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()
    assert Tokens(file).holder(f"Basic {basic}") == "one"


def test_every_hash_is_compared_in_constant_time_whoever_asks(file, monkeypatch):
    tokens = [add_token(file, name) for name in ("a", "b", "c")]
    known, compared = Tokens(file), []
    real = auth.hmac.compare_digest
    monkeypatch.setattr(
        auth.hmac, "compare_digest", lambda a, b: compared.append(len(a)) or real(a, b)
    )
    for token in (tokens[0], tokens[2], "wrong"):
        compared.clear()
        known.holder(f"Bearer {token}")
        assert compared == [32, 32, 32]


def test_damaged_lines_let_nobody_in_and_are_logged_without_their_text(file, caplog):
    token = add_token(file, "one")
    file.write_text("# tokens\n\n" + file.read_text() + "secret-in-the-wrong-place\n")
    assert Tokens(file).holder(f"Bearer {token}") == "one"
    assert ":4: not a token's line" in caplog.text
    assert "secret" not in caplog.text


def test_mistakes_are_one_line(file):
    with pytest.raises(PalateError, match="no token in it; make one with: palate tokens add NAME"):
        Tokens(file)
    with pytest.raises(PalateError, match="expected a name of letters"):
        add_token(file, "a b")
    add_token(file, "one")
    with pytest.raises(PalateError, match="one has a token; revoke it first"):
        add_token(file, "one")
    with pytest.raises(PalateError, match="two has no token; it knows one"):
        revoke_token(file, "two")


def test_commands_make_take_back_and_list(file):
    def run(*arguments):
        return CliRunner().invoke(app, ["tokens", *arguments, "--file", str(file)])

    token = run("add", "trainer").stdout.strip()
    assert Tokens(file).holder(f"Bearer {token}") == "trainer"
    assert "trainer" in run("list", "--format", "csv").stdout
    assert run("revoke", "trainer").exit_code == 0
    assert token_dates(file) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host):
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.nip.io"])
def test_the_network_needs_a_token_or_a_word(host, file):
    with pytest.raises(PalateError, match="no token is asked for; give --tokens"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, tokens=file))
    check_exposure(Settings(host=host, without_token=True))


def test_a_public_server_without_tokens_is_one_line_before_any_model_is_read():
    found = CliRunner().invoke(app, ["serve", "nothing-here", "--host", "0.0.0.0"])
    assert isinstance(found.exception, PalateError)
    assert "--without-token" in str(found.exception)
    assert os.linesep not in str(found.exception)
