"""Reading profiles: what is understood, and each mistake with its message."""

from pathlib import Path

import pytest

from conformance import profiles
from conformance.profiles import ProfileError
from conformance.target import SHAPE, Endpoint, TargetError, parse_url
from tests.conformance.scripted_server import CERTIFICATE


def endpoints(text: str, main: Endpoint | None = None) -> dict[str, Endpoint]:
    with profiles.parse(text, "x.toml", main=main) as broker:
        return broker.endpoints


def test_profiles_come_with_the_runner() -> None:
    assert profiles.names() == ["aedes", "amqtt", "mosquitto", "nats-server", "rabbitmq", "selectmq"]


@pytest.mark.parametrize("name", profiles.names())
def test_own_profiles_can_be_read(name: str) -> None:
    assert profiles.load(name).name == name


def test_empty_profile_is_the_default_target() -> None:
    assert endpoints("") == {"main": parse_url("mqtt://127.0.0.1:1883")}


def test_endpoints() -> None:
    found = endpoints(
        f"""
        [endpoints.main]
        url = "mqtts://broker.example"
        ca_file = "{CERTIFICATE}"
        [endpoints.authenticated]
        url = "mqtt://alice:from-url@broker.example:1884"
        username = "bob"
        password = "secret"
        """
    )
    assert found == {
        "main": Endpoint("main", "mqtts", "broker.example", 8883, ca_file=CERTIFICATE),
        "tls": Endpoint("tls", "mqtts", "broker.example", 8883, ca_file=CERTIFICATE),
        "authenticated": Endpoint("authenticated", "mqtt", "broker.example", 1884, username="bob", password="secret"),
    }


def test_target_stands_for_the_profiles_main() -> None:
    text = '[endpoints.main]\nurl = "mqtt://elsewhere"\nusername = "alice"\npassword = "secret"'
    found = endpoints(text, parse_url("mqtt://here:1"))
    assert found == {"main": Endpoint("main", "mqtt", "here", 1, username="alice", password="secret")}


def test_what_the_target_leaves_open_is_as_the_profile_says() -> None:
    text = f"""
    [endpoints.main]
    url = "mqtts://elsewhere"
    username = "alice"
    password = "secret"
    ca_file = "{CERTIFICATE}"
    """
    found = endpoints(text, parse_url("mqtts://bob@here:1"))
    assert found["main"] == Endpoint("main", "mqtts", "here", 1, username="bob", ca_file=CERTIFICATE)


def test_main_is_the_endpoint_of_what_it_speaks_unless_there_is_another() -> None:
    text = '[endpoints.main]\nurl = "wss://a/x"\n[endpoints.tls]\nurl = "mqtts://a"'
    assert {role: one.url for role, one in endpoints(text).items()} == {
        "main": "wss://a:443/x",
        "websocket": "wss://a:443/x",
        "tls": "mqtts://a:8883",
    }


def test_ca_file_is_beside_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    (tmp_path / "ca.pem").write_bytes(Path(CERTIFICATE).read_bytes())
    file.write_text('[endpoints.main]\nurl = "mqtts://here"\nca_file = "ca.pem"')
    with profiles.load(str(file)) as broker:
        assert (broker.name, broker.main.ca_file) == ("mine", str(tmp_path / "ca.pem"))


def test_file_of_an_endpoint_is_missing() -> None:
    with pytest.raises(TargetError) as caught:
        endpoints('[endpoints.tls]\nurl = "mqtts://a"\nca_file = "/none.pem"')
    assert str(caught.value) == "the CA file /none.pem cannot be read: No such file or directory"


def test_jobs() -> None:
    assert profiles.parse("jobs = 1", "x.toml").jobs == 1
    assert profiles.parse("", "x.toml").jobs is None


def test_deviations() -> None:
    broker = profiles.parse('name = "mine"\n[deviations]\n"MQTT-1" = "why"', "x.toml")
    assert (broker.name, broker.deviations) == ("mine", {"MQTT-1": "why"})


@pytest.mark.parametrize(
    ("commands", "can"),
    [
        ("", []),
        ('restart = ["a"]', ["restart"]),
        ('start = ["a"]\nkill = ["b"]', ["start", "kill", "restart"]),
        ('stop = ["a"]', ["stop"]),
    ],
)
def test_what_commands_allow(commands: str, can: list[str]) -> None:
    broker = profiles.parse(f"[commands]\n{commands}", "x.toml")
    assert [name for name in ("start", "stop", "kill", "restart") if broker.can(name)] == can


MISTAKES = {
    "syntax": ("name =", "is not TOML: Invalid value (at end of document)"),
    "unknown table": (
        "[endpoint]",
        "'endpoint' is not known; did you mean 'endpoints'?: "
        "there are name, about, jobs, run, commands, endpoints, deviations",
    ),
    "no jobs": ("jobs = 0", "'jobs' must be 1 or more"),
    "wrong kind": ("name = 1", "'name' must be a text"),
    "bool for a number": (
        '[endpoints.limited]\nurl = "mqtt://a"\nlimit = true',
        "[endpoints.limited] 'limit' must be a whole number",
    ),
    "unknown endpoint": (
        '[endpoints.mian]\nurl = "mqtt://a"',
        "[endpoints.mian] is no known endpoint; did you mean 'main'?: "
        "there are main, authenticated, acl, limited, identifiers, tls, websocket",
    ),
    "endpoint is no table": ("[endpoints]\nmain = 1", "[endpoints.main] must be a table"),
    "no address": (
        "[endpoints.main]",
        "[endpoints.main] lacks 'url': it is the endpoint where any client may do anything: all ordinary tests use it",
    ),
    "no password": (
        '[endpoints.authenticated]\nurl = "mqtt://a"\nusername = "b"',
        "[endpoints.authenticated] lacks 'password': it is the endpoint "
        "where only `username` with `password` may connect",
    ),
    "bad address": (
        '[endpoints.main]\nurl = "http://a"',
        f"[endpoints.main] url 'http://a' is no target: the scheme 'http' is not known; give it as {SHAPE}",
    ),
    "command is a text": (
        '[commands]\nstart = "systemctl start broker"',
        "[commands] 'start' must be a list",
    ),
    "empty command": ("[run]\ncommand = []", '[run] command must be a list of texts, such as ["program", "argument"]'),
    "no command": ("[run]", '[run] command must be a list of texts, such as ["program", "argument"]'),
    "prepare": (
        '[run]\ncommand = ["a"]\nprepare = [["b"], "c"]',
        '[run] prepare, command 2 must be a list of texts, such as ["program", "argument"]',
    ),
    "file": ('[run]\ncommand = ["a"]\n[run.files]\nx = 1', "[run.files] 'x' must be a text"),
    "run and commands": (
        '[run]\ncommand = ["a"]\n[commands]\nstart = ["b"]',
        "[commands] is of no use beside [run]: take one of them out",
    ),
    "run without an address": (
        '[run]\ncommand = ["a"]',
        "[endpoints.main] is missing: a broker that the runner starts needs an address",
    ),
    "unknown place": (
        '[run]\ncommand = ["a", "{{port.other}}"]\nports = ["main"]',
        "run command has {{port.other}}, which is not known: there are dir, port.main, python, selectmq",
    ),
    "place without a run": (
        '[endpoints.main]\nurl = "mqtt://a:{{port.main}}"',
        "endpoints main url has {{port.main}}, which is not known: there are python, selectmq",
    ),
    "deviation": ("[deviations]\nx = 1", "[deviations] 'x' must be a text"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(text: str, expected: str) -> None:
    with pytest.raises(ProfileError) as caught:
        profiles.parse(text, "x.toml")
    assert str(caught.value) == f"profile x.toml: {expected}"


def test_target_beside_a_broker_of_its_own() -> None:
    text = '[run]\ncommand = ["a"]\n[endpoints.main]\nurl = "mqtt://a"'
    with pytest.raises(ProfileError) as caught:
        profiles.parse(text, "x.toml", main=parse_url("mqtt://b"))
    assert str(caught.value) == (
        "profile x.toml: [run] it starts a broker by itself: leave the target out, or take [run] out"
    )


def test_unknown_profile() -> None:
    with pytest.raises(ProfileError) as caught:
        profiles.load("mosquito")
    assert str(caught.value) == (
        "there is no profile 'mosquito'; did you mean 'mosquitto'?: "
        "give one of aedes, amqtt, mosquitto, nats-server, rabbitmq, selectmq, or the path of a TOML file"
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        profiles.load(str(tmp_path / "none.toml"))
    assert str(caught.value) == f"profile {tmp_path}/none.toml: cannot be read: No such file or directory"


def test_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ProfileError) as caught:
        profiles.load(str(file))
    assert str(caught.value) == f"profile {file}: is not UTF-8 text"


def test_fill() -> None:
    assert profiles.fill("{{a}} and {{ b.c }}, {not} this", {"a": "1", "b.c": "2"}) == "1 and 2, {not} this"
