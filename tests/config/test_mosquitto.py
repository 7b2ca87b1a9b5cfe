"""The reader of mosquitto.conf: lines, included files, whose listener a line is, and what is no mosquitto.conf."""

from pathlib import Path

import pytest

from broker.config.mosquitto import Conf, NotMosquitto, read


def written(directory: Path, files: dict[str, str | bytes]) -> str:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(directory / "mosquitto.conf")


def parsed(directory: Path, text: str | bytes, **files: str) -> Conf:
    more = {f"conf.d/{name}.conf": content for name, content in files.items()}
    return read(written(directory, {"mosquitto.conf": text, **more}), str(directory))


def shape(conf: Conf) -> list[list[str]]:
    """The names of the general lines, and of each listener's, after what opened it."""
    listeners = [
        [each.line.value if each.line else "default", *(line.name for line in each.lines)] for each in conf.listeners
    ]
    return [[line.name for line in conf.general], *listeners]


@pytest.mark.parametrize(
    "text",
    [
        "persistence true\nlistener 1883\n",
        "\r\n# comment\r\npersistence true\r\n\r\nlistener 1883\r\n",
        "\ufeffpersistence true\nlistener 1883",
        "  persistence   true  \n\t# comment\nlistener\t1883",
    ],
    ids=["plain", "CRLF", "BOM", "spaces and tabs"],
)
def test_lines(text: str, tmp_path: Path) -> None:
    conf = parsed(tmp_path, text)
    assert [(line.name, line.value) for line in conf.lines()] == [("persistence", "true"), ("listener", "1883")]


def test_a_line_knows_its_place(tmp_path: Path) -> None:
    conf = parsed(tmp_path, "# first\n\npersistence true\ninclude_dir conf.d\n", a="\nautosave_interval 5\n")
    assert [line.place for line in conf.lines()] == [f"{tmp_path}/mosquitto.conf:3", "conf.d/a.conf:2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [[]]),
        ("persistence true", [["persistence"]]),
        ("listener 1883\nmax_qos 1\nlistener 1884\ncertfile x", [[], ["1883", "max_qos"], ["1884", "certfile"]]),
        ("listener 1883\npassword_file x", [["password_file"], ["1883"]]),
        (
            "per_listener_settings true\nlistener 1883\npassword_file x\nlistener 1884\nacl_file y",
            [["per_listener_settings"], ["1883", "password_file"], ["1884", "acl_file"]],
        ),
        ("port 1883\nmax_connections 5", [[], ["default", "port", "max_connections"]]),
        ("listener 1884\nport 1883\nmount_point x", [[], ["default", "port", "mount_point"], ["1884"]]),
        ("max_connections 5\nlistener 1884", [[], ["default", "max_connections"], ["1884"]]),
        # Mosquitto makes nothing of these before a listener.
        ("per_listener_settings true\nacl_file x\nlistener 1", [["per_listener_settings", "acl_file"], ["1"]]),
        ("listener 1\nplugin x\nmax_qos 1\nplugin_opt_a b", [["plugin", "plugin_opt_a"], ["1", "max_qos"]]),
        ("listener 1\nplugin_use x\nplugin_opt_a b", [[], ["1", "plugin_use", "plugin_opt_a"]]),
        ("listener 1\nconnection b\naddress h\ncertfile x", [["connection", "address"], ["1", "certfile"]]),
    ],
)  # fmt: skip
def test_whose_listener_a_line_is(text: str, expected: list[list[str]], tmp_path: Path) -> None:
    assert shape(parsed(tmp_path, text)) == expected


def test_included_files_come_in_mosquitto_s_order(tmp_path: Path) -> None:
    names = ["b", "A", "01", "a", "B", "00"]
    conf = parsed(tmp_path, "include_dir conf.d\npid_file end", **{name: f"user {name}" for name in names})
    (tmp_path / "conf.d" / "README").write_text("no configuration")
    assert [line.value for line in conf.general] == ["00", "01", "A", "a", "B", "b", "end"]


def test_a_file_begins_anew_with_the_default_listener(tmp_path: Path) -> None:
    conf = parsed(
        tmp_path, "listener 1\ninclude_dir conf.d\nmax_connections 1",
        a="listener 2\nmax_connections 2", b="max_connections 3",
    )  # fmt: skip
    values = [(each.line and each.line.value, [line.value for line in each.lines]) for each in conf.listeners]
    assert values == [(None, ["3"]), ("1", ["1"]), ("2", ["2"])]


NO_OPTION = "this is no mosquitto.conf: Mosquitto has no option"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, ": there is no such file: correct its name"),
        ({"mosquitto.conf/x": ""}, ": is a directory: name the mosquitto.conf in it"),
        ({"mosquitto.conf": b"user a\n\xff"}, ":2: is not UTF-8, which Mosquitto wants too: save it as UTF-8"),
        ({"mosquitto.conf": "# mine\nport = 1883\n"}, ":2: this is no mosquitto.conf but TOML or INI: 'port'"),
        ({"mosquitto.conf": "port=1883\n"}, ":1: this is no mosquitto.conf but TOML or INI: 'port=1883'"),
        ({"mosquitto.conf": "[[listeners]]\n"}, ":1: this is no mosquitto.conf but TOML or INI: '[[listeners]]'"),
        ({"mosquitto.conf": "Dear all,\n\nhello"}, f":1: {NO_OPTION} 'Dear'"),
        ({"mosquitto.conf": "x" * 99}, f":1: {NO_OPTION} '{'x' * 37}...'"),
        ({"mosquitto.conf": "ann:$7$101$aaaa$bbbb\n"}, f":1: {NO_OPTION} 'ann'"),
        ({"mosquitto.conf": "x" * (4 << 20) + "\n"}, ": is larger than 4 MiB: is it a mosquitto.conf?"),
    ],
)
def test_what_is_no_mosquitto_conf(files: dict[str, str | bytes], why: str, tmp_path: Path) -> None:
    path = written(tmp_path, files)
    with pytest.raises(NotMosquitto) as caught:
        read(path, str(tmp_path))
    assert str(caught.value) == f"{tmp_path}/mosquitto.conf{why}"


def test_a_directory_that_cannot_be_included(tmp_path: Path) -> None:
    with pytest.raises(NotMosquitto) as caught:
        parsed(tmp_path, "\ninclude_dir none")
    assert str(caught.value) == (
        f"{tmp_path}/mosquitto.conf:2: include_dir 'none' cannot be read: there is no such file or directory"
    )
