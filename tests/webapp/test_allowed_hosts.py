"""Names under which a server of this project answers, and web pages that may call it."""

import asyncio

import pytest

from hybridiqa.webapp.allowed_hosts import AllowedHosts, host_name, is_loopback, names_of_server

ANSWER = [{"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body", "body": b"ok"}]


async def application(scope, receive, send):
    for message in ANSWER:
        await send(message)


def ask(*headers: tuple[str, str], names=(), server=("127.0.0.1", 7860), kind="http") -> tuple[int, str]:
    """Return the status and the text with which a request of these headers is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "method": "GET", "headers": raw, "server": server}
    asyncio.run(AllowedHosts(application, names)(scope, None, send))
    if kind == "websocket":
        return sent[0].get("code", 0), sent[0].get("reason", "")
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:7860", "localhost:1", "LOCALHOST", "[::1]:7860", "[::1]", "127.8.9.1:80"]
)
def test_the_loopback_is_always_allowed_at_any_port(host):
    assert ask(("host", host)) == (200, "ok")
    assert ask(("host", host), ("origin", f"http://{host}")) == (200, "ok")


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost"),
        *("192.168.1.7:7860", "0.0.0.0:7860", "2130706433", "0x7f.1", "[::2]", "[::1", "", "localhost evil.example"),
    ],
)
def test_another_name_is_refused_with_the_option_that_allows_it(host):
    status, text = ask(("host", host))
    assert status == 403 and "--allowed_hosts NAME" in text and "It answers as localhost;" in text
    if host.endswith("evil.example"):  # and where it is given, it does
        assert ask(("host", host), names=names_of_server("127.0.0.1", [host])) == (200, "ok")


def test_a_request_without_a_name_or_with_two_is_refused():
    assert ask()[0] == 403
    assert ask(("host", "localhost"), ("host", "evil.example"))[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "https://localhost.evil.example", "null", "", "localhost"])
def test_a_web_page_of_another_name_is_refused_and_none_is_not(origin):
    status, text = ask(("host", "localhost:7860"), ("origin", origin))
    assert status == 403 and "called from a web page of" in text
    assert ask(("host", "localhost:7860"), ("origin", "http://localhost:7860"), ("origin", origin))[0] == 403
    assert ask(("host", "localhost:7860"))[0] == 200


def test_a_websocket_is_closed_under_another_name():
    code, reason = ask(("host", "evil.example"), kind="websocket")
    assert code == 1008 and "evil.example" in reason


def test_the_address_at_which_a_connection_arrived_is_this_machines():
    for server in ("192.168.1.7", "::ffff:192.168.1.7"):
        assert ask(("host", "192.168.1.7:7860"), server=(server, 7860))[0] == 200
        assert ask(("host", "192.168.1.8:7860"), server=(server, 7860))[0] == 403
        assert ask(("host", "evil.example"), server=(server, 7860))[0] == 403
    assert ask(("host", "192.168.1.7"), server=None)[0] == 403


def test_names_are_those_of_the_host_the_space_and_the_options(monkeypatch):
    monkeypatch.setenv("SPACE_HOST", "you-space.hf.space, pictures.example.org")
    monkeypatch.setattr("hybridiqa.webapp.allowed_hosts.socket.gethostname", lambda: "Studio")
    monkeypatch.setattr("hybridiqa.webapp.allowed_hosts.socket.getfqdn", lambda: "studio.home.arpa")
    space = {"you-space.hf.space", "pictures.example.org"}
    assert names_of_server("127.0.0.1") == space | {"127.0.0.1"}
    assert names_of_server("192.168.1.7") == space | {"192.168.1.7"}
    for host in ("0.0.0.0", "::"):
        assert names_of_server(host, ["NAS.local"]) == space | {
            "studio",
            "studio.local",
            "studio.home.arpa",
            "nas.local",
        }
    for name in ("http://a.b", "a.b:80", "a.b/c", "", "a b/"):
        with pytest.raises(ValueError, match="--allowed_hosts takes names like"):
            names_of_server("127.0.0.1", [name])


def test_a_name_is_read_as_browsers_write_it():
    names = {"A.b.:80": "a.b", "[FE80::1]:7860": "fe80::1", "[::1]": "::1", "::1": "::1", "[::": "", "[x": ""}
    assert {text: host_name(text) for text in names} == names
    assert is_loopback("::1") and not is_loopback("") and not is_loopback("localhost.")
