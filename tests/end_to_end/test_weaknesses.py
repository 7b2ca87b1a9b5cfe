"""What other brokers had to publish advisories for, class by class: each has a test that fails without its protection.

`ELSEWHERE` names the tests of a class that stand where they belong in the mirror of the broker; here are those that
need a whole broker, and those of no room. A class that is missed here is the reviewer's to add.
"""

from __future__ import annotations

import ast
import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from broker.core.limits import Limits
from broker.core.router import Router
from broker.core.session import Discard, Session
from tests.broker_process import ROOT, BrokerProcess, StartBroker
from tests.core.harness import Forbidden, World, published
from tests.end_to_end.sys_topics import wait_for_count
from tests.raw_client import (
    Address,
    Closed,
    RawClient,
    Will,
    connack,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

ELSEWHERE = {
    "a large allocation asked for before CONNECT is accepted": [
        "wire/test_decoder.py::test_a_header_that_announces_256_mib_allocates_nothing",
        "core/test_connection.py::test_who_is_not_known_yet_may_send_no_more_than_a_connect",
        "end_to_end/test_limits.py::test_no_client_may_send_a_large_connect_before_it_is_known",
    ],
    "quadratic or exponential work on a topic filter": [
        "wire/test_topics.py::test_matching_takes_linear_time",
        "auth/test_rules.py::test_relations_take_linear_time",
        "auth/test_acl.py::test_answers_take_linear_time",
        "core/test_router.py::test_a_match_does_not_look_at_filters_that_the_topic_cannot_reach",
        "core/test_retained.py::test_a_reader_may_pause_though_nothing_matches",
        "auth/test_gatekeeper.py::test_no_identifier_is_looked_at_for_long",
    ],
    "very deep topics": [
        "core/test_retained.py::test_deep_topics",
        "core/test_exchange.py::test_what_the_limits_of_topics_forbid_ends_the_connection",
        "core/test_exchange.py::test_a_filter_beyond_the_limits_is_refused_and_the_connection_stays",
        "core/test_exchange.py::test_deep_filters_count_by_what_they_take",
        "core/test_exchange.py::test_deep_retained_topics_count_by_what_they_take",
    ],
    "a zero-length topic": [  # a PUBLISH, a will, a filter: rows of tests/vectors.py
        "wire/test_packets.py::test_a_topic_name_that_may_not_be_published_to_is_refused",
        "core/test_router.py::test_a_topic_that_nobody_can_publish_to_has_no_route",
        "end_to_end/test_hostile.py::test_every_malformed_packet_closes_its_connection_and_no_other",
    ],
    "a fifth length byte": [  # rows of tests/vectors.py
        "wire/test_decoder.py::test_byte_by_byte",
        "end_to_end/test_hostile.py::test_every_malformed_packet_closes_its_connection_and_no_other",
    ],
    "a small packet that asks for much": [
        "wire/test_packets.py::test_no_packet_has_more_filters_than_the_limit",
        "core/test_exchange.py::test_who_subscribes_again_and_again_gets_no_more_in_a_turn",
        "core/test_exchange.py::test_what_is_still_to_come_does_not_grow_by_asking_again",
    ],
    "a reconnect racing a subscribe": ["end_to_end/test_sessions.py::test_many_takeovers_at_once_leave_one"],
    "a flood that fills a receive queue": [
        "core/test_connection.py::test_while_it_is_decided_nothing_is_looked_at",
        "core/test_connection.py::test_a_flood_is_served_in_shares",
        "core/test_journal.py::test_a_publisher_waits_when_the_store_is_slower_than_it",
        "core/test_journal.py::test_a_client_whose_acknowledgements_wait_sends_so_many_more_and_no_more",
        "end_to_end/test_hostile.py::test_a_client_that_publishes_faster_than_anyone_reads",
    ],
    "wildcards or separators in a name that meet an ACL pattern": [
        "auth/test_acl.py::test_a_name_that_would_widen_a_pattern_gets_nothing_from_it",
        "auth/test_acl.py::test_no_name_escapes_a_denial",
        "auth/test_acl.py::test_no_name_makes_a_pattern_reach_dollar_topics",
        "auth/test_acl.py::test_names_are_put_in_once",
        "auth/test_gatekeeper.py::test_the_policy_decides",
        "end_to_end/test_access.py::test_a_name_with_wildcards_widens_no_pattern",
    ],
    "a will that passes by the ACL": [
        "core/test_exchange.py::test_a_will_is_published_only_where_its_client_may_publish",
        "end_to_end/test_access.py::test_a_will_that_is_not_allowed_goes_nowhere",
        "test_cli.py::test_a_will_is_judged_by_the_rights_of_its_end",
    ],
    "a retained message that outlives its author's right": [
        "core/test_exchange.py::test_a_retained_message_is_delivered_while_its_author_may_publish_it",
        "core/test_exchange.py::test_the_right_of_a_name_that_nobody_checked_does_not_keep_a_retained_message",
    ],
    "a subscription that outlives a revoked right": [
        "core/test_exchange.py::test_changed_rights_hold_from_now_on",
        "core/test_exchange.py::test_rights_go_with_the_user_of_the_present_connection",
        "core/test_exchange.py::test_the_rights_of_who_is_away_hold_after_a_restart",
        "core/test_queue.py::test_what_the_client_may_not_receive_any_more_is_not_sent_when_it_is_back",
        "core/test_queue.py::test_what_waits_for_a_client_that_is_there_is_judged_when_its_turn_comes",
        "test_cli.py::test_a_reload_takes_over_the_access_control_list",
        "test_cli.py::test_a_reload_takes_over_the_password_file_and_closes_who_is_no_longer_in_it",
        "end_to_end/test_access.py::test_what_was_queued_is_judged_again_when_its_client_comes_for_it",
    ],
    "a QoS 2 release after the right was revoked": [
        "core/test_queue.py::test_a_qos_2_message_in_flight_is_released_but_not_sent_again_when_its_right_is_gone",
        "core/test_queue.py::test_a_handshake_under_way_is_finished_though_the_right_is_gone",
        "core/test_queue.py::test_the_handshake_of_a_message_that_the_client_has_is_finished_whatever_its_rights",
    ],
    "an empty ACL or password file that opens everything": [
        "auth/test_acl.py::test_without_a_rule_nothing_is_allowed",
        "auth/test_passwords.py::test_an_empty_file_admits_nobody",
    ],
    "$SYS spoofing": [
        "core/test_exchange.py::test_a_forbidden_publish_is_acknowledged_and_goes_nowhere",
        "end_to_end/test_sys.py::test_clients_cannot_publish_to_it",
        "end_to_end/test_wills.py::test_a_will_to_the_brokers_own_topics_goes_nowhere",
    ],
    "ending or wiping another's session without authentication": [
        "core/test_exchange.py::test_who_is_refused_takes_nothing_over",
        "core/test_exchange.py::test_nobody_anonymous_gets_or_ends_the_session_of_a_user",
        "core/test_exchange.py::test_nobody_anonymous_takes_over_the_connection_of_a_user_without_a_lasting_session",
        "end_to_end/test_sessions.py::test_nobody_anonymous_gets_or_ends_the_session_of_a_user",
        "end_to_end/test_connecting.py::test_who_fails_to_authenticate_changes_nothing",
        "end_to_end/test_connecting.py::test_packets_behind_a_refused_connect_do_nothing",
    ],
    "a slow reader that stops others": [
        "end_to_end/test_hostile.py::test_a_client_that_never_reads",
        "end_to_end/test_hostile.py::test_a_client_that_never_reads_the_retained_messages_it_asked_for",
        "core/test_connection.py::test_a_client_that_takes_nothing_loses_qos_0",
    ],
    "keep-alive 0 held for ever": [
        "core/test_connection.py::test_the_listener_may_limit_the_keep_alive",
        "end_to_end/test_connecting.py::test_max_keepalive_holds_for_who_asks_for_more_or_for_none",
        "end_to_end/test_connecting.py::test_silence_is_closed_after_connect_timeout",
        # Without that limit: who is gone without a word is found by TCP.
        "net/test_listener.py::test_connections_are_accepted_without_blocking_and_without_delay",
    ],
    "a data file that everyone can read": [
        "storage/test_sqlite_store.py::test_directory_file_and_log_are_for_their_owner_only",
        "storage/test_sqlite_store.py::test_a_file_that_others_could_read_is_closed_to_them",
        "auth/test_passwords.py::test_a_new_file_is_for_its_owner_only",
    ],
    "user enumeration by timing": [
        "auth/test_passwords.py::test_a_check_costs_the_same_for_every_user_and_for_nobody",
        "auth/test_gatekeeper.py::test_a_password_is_checked_before_anything_that_concerns_the_user",
    ],
    "log injection through names": [
        "test_logs.py::test_a_value_is_quoted_if_it_could_be_taken_for_something_else",
        "test_logs.py::test_no_name_can_forge_a_text_line_or_a_field",
        "test_logs.py::test_every_json_line_parses_to_what_was_logged",
        "test_logs.py::test_an_exceptions_text_cannot_forge_a_line",
        "test_cli.py::test_text_lines_cannot_be_forged",
        "test_cli.py::test_json_lines_parse",
        "wire/test_packets.py::test_the_text_of_an_error_names_the_rule_and_never_the_client_s_data",
    ],
    "wrong passwords that keep others out": [
        "auth/test_checks.py::test_one_address_has_half_of_the_threads",
        "auth/test_checks.py::test_addresses_take_turns",
        "auth/test_checks.py::test_an_address_may_hold_what_is_still_free_for_others",
        "end_to_end/test_connecting.py::test_many_passwords_at_once_hold_up_nobody_who_is_there",
    ],
}

ELSEWHERE |= {
    "a topic, a filter or a right that costs seconds": [
        "attacks/time_by_subscribing.py::wildcards_of_many_clients",
        "attacks/time_by_subscribing.py::an_acl_that_branches",
        "attacks/on_time.py::many_wildcards",
        "core/test_router.py::test_a_match_that_takes_long_is_done_in_steps",
        "attacks/test_attacks.py::test_others_are_served_meanwhile",
    ],
    "connections that are opened and reset without end": [
        "attacks/time_by_connecting.py::connections_that_are_reset",
        "attacks/on_time.py::clients_that_come_and_go",
        "end_to_end/test_hostile.py::test_clients_that_come_and_go",
    ],
    "a silent connection that keeps the broker busy": [
        "end_to_end/test_weaknesses.py::test_who_says_nothing_costs_nothing",
        "end_to_end/test_hostile.py::test_a_thousand_silent_connections",
    ],
    "memory that a refused CONNECT leaves behind": [
        "end_to_end/test_weaknesses.py::test_a_connect_that_is_refused_leaves_nothing_behind",
        "end_to_end/test_weaknesses.py::test_a_web_socket_that_breaks_a_rule_leaves_nothing_behind",
    ],
    "CONNECT, SUBSCRIBE and DISCONNECT in an order that nobody thought of": [
        "end_to_end/test_weaknesses.py::test_clients_that_subscribe_and_are_taken_over_all_at_once",
        "fuzz/test_fuzzers.py::test_some_dialogues_in_process",
    ],
    "lengths within a packet that lie": [  # rows of tests/vectors.py
        "wire/test_decoder.py::test_byte_by_byte",
        "end_to_end/test_hostile.py::test_every_malformed_packet_closes_its_connection_and_no_other",
        "end_to_end/test_hostile.py::test_broken_copies_of_good_packets_harm_nobody",
        "fuzz/test_fuzzers.py::test_some_bytes_for_the_decoder",
    ],
    "the broker's own topics for who asked for everything": [
        "core/test_router.py::test_a_wildcard_in_front_has_no_part_in_topics_with_a_dollar",
        "auth/test_acl.py::test_no_name_makes_a_pattern_reach_dollar_topics",
    ],
    "a WebSocket request with many or long headers": [
        "net/test_ws.py::test_what_is_refused",
        "attacks/time_by_connecting.py::web_socket_requests",
        "end_to_end/test_weaknesses.py::test_thousands_of_headers_are_refused",
    ],
    "a WebSocket message that unpacks to far more than came": [
        "net/test_ws.py::test_no_compression_is_agreed_on",
        "net/test_ws.py::test_compressed_frames_are_refused",
    ],
    "a WebSocket message in fragments without end": [
        "net/test_ws.py::test_a_message_may_have_fragments_without_end",
        "attacks/on_time.py::fragments_of_nothing",
    ],
    "a foreign page that speaks to the broker": ["net/test_origins.py::test_which_pages_may_connect"],
    "a PROXY header that never ends, or drips": [
        "net/test_proxy.py::test_what_is_no_header",
        "net/test_proxy.py::test_one_that_takes_too_long_is_ended",
        "end_to_end/test_proxy.py::test_connect_timeout_covers_header_and_connect_together",
        "attacks/time_by_connecting.py::proxy_headers_that_drip",
    ],
    "a PROXY header that names no client, or an unknown kind of address": [
        "net/test_proxy.py::test_a_whole_header",
        "net/test_proxy.py::test_any_bytes_in_any_pieces_have_one_outcome",
        "net/test_proxy.py::test_a_proxy_that_speaks_for_itself_is_a_client_from_where_it_is",
    ],
    "a PROXY header from who is no proxy": [
        "end_to_end/test_proxy.py::test_others_are_refused_whatever_they_say_and_told_once",
        "end_to_end/test_proxy.py::test_without_proxy_protocol_a_header_is_no_header",
    ],
    "TLS handshakes that take all there is": [
        "net/test_tls.py::test_only_some_handshakes_are_done_in_a_turn",
        "net/test_tls.py::test_addresses_take_turns_at_handshakes",
        "attacks/on_places.py::handshakes_from_one_address",
        "attacks/time_by_connecting.py::handshakes_that_are_finished",
    ],
}

HERE = {
    "memory kept for a repeated QoS 2 identifier": ["test_a_repeated_qos_2_identifier_keeps_nothing"],
}

#: What was published since 2022 that a broker without TLS in C, bridges or a web page can have, and its class above.
PUBLISHED = {
    "CVE-2023-0809": "a large allocation asked for before CONNECT is accepted",  # Mosquitto
    "CVE-2023-3592": "memory that a refused CONNECT leaves behind",  # Mosquitto: a will with wrong properties
    "CVE-2023-5632": "a silent connection that keeps the broker busy",  # Mosquitto
    "CVE-2023-28366": "memory kept for a repeated QoS 2 identifier",  # Mosquitto
    "CVE-2024-3935": "CONNECT, SUBSCRIBE and DISCONNECT in an order that nobody thought of",  # Mosquitto
    "CVE-2024-8376": "CONNECT, SUBSCRIBE and DISCONNECT in an order that nobody thought of",  # Mosquitto
    "CVE-2024-10525": "lengths within a packet that lie",  # Mosquitto's library: a SUBACK without codes
    "CVE-2023-29994": "lengths within a packet that lie",  # NanoMQ, and 29995, 29996
    "CVE-2023-33657": "lengths within a packet that lie",  # NanoMQ, and 33658 to 33660
    "CVE-2023-34488": "lengths within a packet that lie",  # NanoMQ: CONNECT
    "CVE-2024-42655": "the broker's own topics for who asked for everything",  # NanoMQ
    "CVE-2024-42644": "CONNECT, SUBSCRIBE and DISCONNECT in an order that nobody thought of",  # FlashMQ: QoS above 0
    "CVE-2024-37890": "a WebSocket request with many or long headers",  # ws
    "CVE-2024-52804": "a WebSocket request with many or long headers",  # Tornado: quadratic cookies
    "CVE-2023-26114": "a foreign page that speaks to the broker",  # code-server
    "CVE-2023-44487": "connections that are opened and reset without end",  # HTTP/2 servers
    "CVE-2024-23325": "a PROXY header that names no client, or an unknown kind of address",  # Envoy
    "CVE-2024-23327": "a PROXY header that names no client, or an unknown kind of address",  # Envoy
    "CVE-2021-23351": "a PROXY header that never ends, or drips",  # go-proxyproto, and 23409
}


def test_what_was_published_has_its_class() -> None:
    assert [name for name, weakness in PUBLISHED.items() if weakness not in ELSEWHERE | HERE] == []
    assert [test for tests in HERE.values() for test in tests if test not in globals()] == []


@pytest.mark.parametrize("weakness", ELSEWHERE)
def test_the_tests_of_a_class_are_there(weakness: str) -> None:
    missing = []
    for name in ELSEWHERE[weakness]:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        if function not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(name)
    assert missing == []


# --- memory, and work ---


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
def test_a_repeated_qos_2_identifier_keeps_nothing(clean: bool, start_broker: StartBroker, tmp_path: Path) -> None:
    """Memory kept for a repeated QoS 2 identifier: it is one message, however often it comes."""
    broker = start_broker(data=None if clean else tmp_path / "data")
    with (
        RawClient.connected(broker.address, "reader") as reader,
        RawClient.connected(broker.address, "author", clean=clean) as author,
    ):
        reader.subscribe(("t", 2))
        # Every identifier that there is, held without a release...
        for first in range(1, 65_536, 1311):
            ids = range(first, min(first + 1311, 65_536))
            author.send(b"".join(publish("other", b"x", 2, packet_id=i) for i in ids))
            author.expect(*map(pubrec, ids))
        before = broker.rss()
        # ... and one of them again and again.
        author.send(pubrel(7))
        author.expect(pubcomp(7))
        again = publish("t", b"x" * 10_000, 2, packet_id=7, dup=True)
        for _ in range(60):
            author.send(again * 50)
            author.expect(*[pubrec(7)] * 50)
        grown = broker.rss() - before
        assert reader.message().payload == b"x" * 10_000
        reader.ping()  # once
    print(f"3000 times the same 10 KB: {grown / 1024:.0f} KiB more")
    assert grown < 8 << 20


def test_a_match_takes_as_many_steps_as_there_are_levels_of_filters() -> None:
    """Exponential work on a topic filter: `+` and the name itself at each level are two ways down, to as many leaves as
    there are filters, and to no more."""

    def steps(filters: int, levels: int) -> int:
        router = Router(Limits(max_topic_levels=1000))
        session = Session("c", 0, Discard())
        for number in range(filters):
            first = ["a+"[number >> bit & 1] for bit in range(8)]
            router.subscribe(session, "/".join(first + ["+"] * (levels - 8)).encode(), 0)
        looked = 0

        class Counted(dict[bytes, object]):
            def get(self, *arguments: object) -> object:
                nonlocal looked
                looked += 1
                return super().get(*arguments)  # type: ignore[call-overload]

        nodes = [router._tree.root]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            node.children = Counted(node.children)  # type: ignore[assignment]
        assert router.route(b"/".join([b"a"] * levels)).size == 1
        return looked

    assert steps(256, 200) < 2.1 * steps(256, 100)
    assert steps(256, 100) < 4.2 * steps(64, 100)
    assert steps(256, 100) < 2 * 256 * 100 + 2 * 512


def test_what_comes_behind_a_connect_waits_in_the_network(start_broker: StartBroker, tmp_path: Path) -> None:
    """A flood that fills a receive queue: before it is known who sends it, nothing is read."""
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1_000_000)
    broker = start_broker(f'passwords = "{passwords}"\n')
    before = broker.rss()
    with RawClient(broker.address) as client:
        client.send(connect("c", username="ann", password=b"wrong"))
        client.socket.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            block = publish("t", b"x" * 65_000)
            while sent < 64 << 20:
                client.send(block)
                sent += len(block)
        grown = broker.rss() - before
        assert client.closed() in (connack(4), b"")  # the code may be lost behind so much that nobody read
    broker.wait_for("client refused", code=4)
    print(f"{sent / 2**20:.0f} MiB sent, {grown / 2**20:.1f} MiB more in memory")
    assert grown < 8 << 20


def grown_by(broker: BrokerProcess, address: Address, wrong: list[bytes]) -> int:
    """Bytes that the broker has more after each of these was sent 60 times over connections of their own."""

    def attempts(count: int) -> int:
        for _ in range(count):
            for data in wrong:
                with RawClient(address) as client:
                    with contextlib.suppress(OSError):
                        client.send(data)
                        client.socket.shutdown(socket.SHUT_WR)
                    client.closed()
        return broker.rss()

    before = attempts(20)
    return attempts(60) - before


def test_a_connect_that_is_refused_leaves_nothing_behind(shared_broker: BrokerProcess, address: Address) -> None:
    """With all that it may carry, and its error at the end. What waits for Python's collector of circles counts: it
    comes by rarely."""
    will = Will("w" * 60_000, b"x" * 60_000)
    wrong = [
        connect("c" * 60_000, will=will._replace(topic="#" + "w" * 60_000)),
        connect("", clean=False, will=will),
        connect("c", will=will, username="u" * 60_000, password=b"p", level=9),
        connect("c" * 60_000, will=will, name=b"MQTX"),
        connect("c", will=will, flags=1),
    ]
    grown = grown_by(shared_broker, address, wrong)
    print(f"{grown / 2**20:.1f} MiB more after 300 wrong CONNECTs of up to 180 KB")
    assert grown < 8 << 20


def test_a_web_socket_that_breaks_a_rule_leaves_nothing_behind(start_broker: StartBroker) -> None:
    """Large frames before the fault, in the frames or in what they carry."""
    broker = start_broker("[[listeners]]\nport = 0\nwebsocket = true\n")
    head = (
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )

    def frame(first: int, payload: bytes) -> bytes:
        return bytes((first, 0xFF)) + len(payload).to_bytes(8, "big") + bytes(4) + payload

    will = Will("#" + "w" * 60_000, b"x" * 60_000)
    wrong = [
        head + frame(0x81, b"x" * 400_000),
        head + frame(0x82, connect() + b"x" * 300_000) + frame(0x83, b""),
        head + frame(0x82, connect("c" * 60_000, will=will)) + frame(0x88, b""),
    ]
    grown = grown_by(broker, broker.address, wrong)
    print(f"{grown / 2**20:.1f} MiB more after 180 WebSockets that broke a rule")
    assert grown < 8 << 20


def test_who_says_nothing_costs_nothing(start_broker: StartBroker) -> None:
    """Neither before CONNECT, nor behind half of it, nor who has half closed its side, nor who is idle."""
    broker = start_broker("connect_timeout = 60\n")
    silent = [RawClient(broker.address) for _ in range(150)]
    for client in silent[::3]:
        client.send(connect("half")[:-2])
    for client in silent[1::3]:
        client.send(connect())
        client.expect(connack(0))
    for client in silent[2::3]:
        client.socket.shutdown(socket.SHUT_WR)
    with RawClient.connected(broker.address) as client:
        client.ping()
    before = broker.cpu()
    time.sleep(1.0)  # what is measured is time
    used = broker.cpu() - before
    assert used < 0.2
    for client in silent:
        client.close()


def test_thousands_of_headers_are_refused(start_broker: StartBroker) -> None:
    """Whoever sends them gets an answer, and others are served."""
    broker = start_broker("[[listeners]]\nport = 0\nwebsocket = true\n[[listeners]]\nport = 0\n")
    for headers in (b"".join(b"X%d:\r\n" % number for number in range(4000)), b"Cookie: " + b'a="\\1' * 4000 + b"\r\n"):
        with RawClient(broker.addresses[0]) as client:
            client.send(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
            assert client.closed().startswith(b"HTTP/1.1 4")
    RawClient.connected(broker.addresses[1]).disconnect()


# --- races ---


def test_a_subscribe_that_was_under_way_at_a_takeover() -> None:
    """A reconnect racing a subscribe: the session has the subscription once, the new connection the messages."""
    world = World()
    old = world.join("c", clean=False)
    world.lane.held = True
    old.subscribe(("t", 1))  # the SUBACK waits for the store
    new = world.dial()
    new.connect("c", clean=False)
    assert (old.closed, old.take(), new.take()) == (True, [], [])
    world.lane.held = False
    world.settle()
    assert new.take() == [("CONNACK", 1, 0)]
    world.join("pub").publish("t", "x", 1, 1)
    assert new.take() == [published("t", "x", 1, 1)]
    assert (old.take(), world.exchange.router.count) == ([], 1)
    # And one who wanted a clean session gets no more than that.
    world.lane.held = True
    new.subscribe(("u", 1))
    newest = world.dial()
    newest.connect("c")
    world.lane.held = False
    world.settle()
    assert newest.take() == [("CONNACK", 0, 0)]
    newest.subscribe(("v", 0)).take()
    assert ([*(world.session("c").subscriptions or ())], world.exchange.router.count) == ([b"v"], 1)


def test_clients_that_subscribe_and_are_taken_over_all_at_once(start_broker: StartBroker, tmp_path: Path) -> None:
    """The same with sockets and threads: the broker meets no bug (which every end of a broker here checks)."""
    broker = start_broker(data=tmp_path / "data")

    def churn(number: int) -> None:
        for turn in range(25):
            with contextlib.suppress(Closed, ConnectionError), RawClient(broker.address) as client:
                wanted = subscribe(*((f"{number}/{n}/+", n % 3) for n in range(20)))
                client.send(
                    connect("same", clean=(turn + number) % 3 == 0)
                    + wanted
                    + publish(f"{number}/1/x", b"x", 1)
                    + wanted
                )
                for _ in range((turn + number) % 4):
                    client.next()

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with RawClient.connected(broker.address, "same") as client:  # clean: nothing is left of all that
        client.subscribe(("last", 1))
    with RawClient.connected(broker.address, "same", clean=False) as client:
        client.send(publish("last", b"x", 1) + publish("1/1/x", b"x", 1))
        client.expect(puback(1), puback(1))
        client.ping()


# --- rights ---


class Access:
    """A broker with users, whose access control list can be changed."""

    def __init__(self, start_broker: StartBroker, directory: Path) -> None:
        self.acl = directory / "acl"
        passwords = directory / "passwords"
        for user in ("ann", "bob"):
            set_password(str(passwords), user, user.encode(), create=True, iterations=1)
        self.acl.write_text("user ann\ntopic readwrite #\nuser bob\ntopic readwrite #\n")
        self.broker = start_broker(f'passwords = "{passwords}"\nacl = "{self.acl}"\n', data=directory / "data")

    def client(self, user: str, client_id: str = "", *, clean: bool = True, present: bool = False) -> RawClient:
        return RawClient.connected(
            self.broker.address, client_id or user, clean=clean, present=present, username=user, password=user.encode()
        )

    def allow(self, ann: str, bob: str) -> None:
        self.acl.write_text(f"user ann\n{ann}\nuser bob\n{bob}\n")
        self.broker.reload()


@pytest.fixture
def access(start_broker: StartBroker, tmp_path: Path) -> Access:
    return Access(start_broker, tmp_path)


def test_a_retained_message_does_not_outlive_its_author_s_right(access: Access) -> None:
    """Checked at delivery, by the rights of that moment: after reloads and restarts, too."""

    def kept() -> list[str]:
        with access.client("ann") as ann:
            ann.subscribe(("kept/#", 0))
            ann.send(publish("kept/~end", b"x"))
            topics = []
            while (message := ann.message()).topic != "kept/~end":
                topics.append(message.topic)
            return sorted(topics)

    with access.client("bob") as bob, access.client("ann") as ann:
        for i, (client, topic) in enumerate(((bob, "kept/1"), (bob, "kept/2"), (ann, "kept/3")), 1):
            client.send(publish(topic, b"x", 1, packet_id=i, retain=True))
            client.expect(puback(i))
    assert kept() == ["kept/1", "kept/2", "kept/3"]
    access.allow("topic readwrite #", "topic read #\ntopic write kept/2")
    assert kept() == ["kept/2", "kept/3"]
    access.broker.restart()
    assert kept() == ["kept/2", "kept/3"]
    access.allow("topic readwrite #", "topic readwrite #")
    assert kept() == ["kept/1", "kept/2", "kept/3"]


def test_a_release_brings_nothing_that_may_not_be_published(access: Access) -> None:
    """A QoS 2 release after the right was revoked: the right is that of the PUBLISH, which is delivered at once. Else
    who lost a right could keep messages back, and release them when they like."""
    with access.client("ann") as ann, access.client("bob", clean=False) as bob:
        ann.subscribe(("t/#", 2))
        bob.send(publish("t/1", b"allowed", 2, packet_id=1))
        bob.expect(pubrec(1))
        assert ann.message()[:2] == ("t/1", b"allowed")
        access.allow("topic readwrite #", "topic read #")
        bob.send(publish("t/2", b"forbidden", 2, packet_id=2) + publish("t/1", b"again", 2, packet_id=1, dup=True))
        bob.expect(pubrec(2), pubrec(1))
        bob.send(pubrel(1) + pubrel(2))
        bob.expect(pubcomp(1), pubcomp(2))
        # Nor does a right that comes back make up for it.
        bob.send(publish("t/3", b"forbidden", 2, packet_id=3))
        bob.expect(pubrec(3))
        access.allow("topic readwrite #", "topic readwrite #")
        bob.send(pubrel(3))
        bob.expect(pubcomp(3))
        bob.send(publish("t/end", b"x"))
        ann.send(pubrec(1))
        assert ann.next() == pubrel(1) or ann.next() == pubrel(1)
    events = access.broker.wait_for("publish refused: not authorised", 3)
    assert [event["topic"] for event in events] == ["t/2", "t/1", "t/3"]  # each once


def test_an_empty_password_file_admits_nobody(start_broker: StartBroker, tmp_path: Path) -> None:
    """An empty file is not the same as no file."""
    (tmp_path / "passwords").touch()
    closed = start_broker(f'passwords = "{tmp_path / "passwords"}"\n').address
    half = start_broker(f'passwords = "{tmp_path / "passwords"}"\nallow_anonymous = true\n').address
    for username, password in (("ann", b"x"), ("ann", None), ("", b""), ("", None)):
        for address in (closed, half):
            with RawClient(address) as client:
                client.send(connect("c", username=username, password=password))
                assert client.closed() == connack(4)
    with RawClient(closed) as client:
        client.send(connect("c"))
        assert client.closed() == connack(5)
    RawClient.connected(half, "c").disconnect()


def test_an_empty_access_control_list_allows_nothing(start_broker: StartBroker, tmp_path: Path) -> None:
    """An empty file is not the same as no file."""
    acl = tmp_path / "acl"
    acl.write_text("# nothing yet\n")
    broker = start_broker(f'acl = "{acl}"\n')
    with RawClient.connected(broker.address, "c") as client:
        client.send(subscribe(("#", 0), ("t", 0), ("$SYS/#", 0)) + publish("t", b"x", 1, retain=True))
        client.expect(suback(0x80, 0x80, 0x80), puback(1))
        acl.write_text("topic read t\n")
        broker.reload()
        client.subscribe(("t", 0))
        client.ping()  # nothing was retained
        acl.write_text("")
        broker.reload()
        client.send(subscribe(("t", 0)))
        client.expect(suback(0x80))


def test_rights_that_a_client_loses_stop_its_own_topics_only() -> None:
    """A subscription that outlives a revoked right: what is under way in the same turn, at each QoS."""
    world = World()
    readers = {qos: world.join(f"reader{qos}", username="u").subscribe(("#", qos)) for qos in (0, 1, 2)}
    author = world.join("author")
    for reader in readers.values():
        reader.take()
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    list(world.exchange.sessions.rights_changed(lambda session: world.gatekeeper.granted.get(session.username)))
    author.publish("secret", "x", 2, 1).publish("open", "y", 2, 2)
    for qos, reader in readers.items():
        assert [(one[1], one[3]) for one in reader.take()] == [("open", qos)]


# --- others are served ---


def test_a_flood_of_wrong_passwords_keeps_nobody_else_out(start_broker: StartBroker, tmp_path: Path) -> None:
    """Who comes from another address has the next turn, however many wait; and who was right before waits for none."""
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=40_000)
    set_password(str(passwords), "bob", b"secret", create=False, iterations=40_000)
    broker = start_broker(f'passwords = "{passwords}"\nworkers = 2\n')
    RawClient.connected(broker.address, "ann", username="ann", password=b"secret").disconnect()
    count = 200
    flood = [RawClient(broker.address) for _ in range(count)]
    for i, client in enumerate(flood):
        client.send(connect(f"c{i}", username=f"u{i % 7}", password=b"wrong %d" % i))
    with RawClient.connected(broker.address, "ann", username="ann", password=b"secret"):
        remembered = len(broker.events("client refused"))
    with RawClient(broker.address, source="127.0.0.2") as bob:
        bob.send(connect("bob", username="bob", password=b"secret"))
        bob.expect(connack(0))
        (event,) = broker.wait_for("client connected", client="bob")
        assert event["address"].startswith("127.0.0.2:")
    refused = len(broker.events("client refused"))
    print(f"{remembered} of {count} wrong passwords were told so before ann was in, {refused} before bob")
    assert refused < count // 2  # all of them, if there was one queue
    for client in flood:
        client.close()


def test_six_hundred_clients_with_one_right_password_are_one_check(start_broker: StartBroker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=200_000)
    broker = start_broker(f'passwords = "{passwords}"\n')
    crowd = [RawClient(broker.address) for _ in range(600)]
    start = time.monotonic()
    for i, client in enumerate(crowd):
        client.send(connect(f"c{i}", username="ann", password=b"secret"))
    for client in crowd:
        client.expect(connack(0))
        client.close()
    print(f"{time.monotonic() - start:.1f} s; 600 checks would take a minute")
    assert broker.events("client refused") == []


def test_devices_with_passwords_of_their_own_wait_however_many_are_behind_one_address(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """600 wrong ones here, since making as many right ones takes long: each is checked, and none refused unheard."""
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1_000)
    broker = start_broker(f'passwords = "{passwords}"\nworkers = 1\n')
    crowd = [RawClient(broker.address) for _ in range(600)]
    for i, client in enumerate(crowd):
        client.send(connect(f"c{i}", username="ann", password=b"wrong %d" % i))
    for client in crowd:
        client.expect(connack(4))
        client.close()


def test_what_waits_for_a_check_is_bounded_for_an_address_and_freed_with_its_client(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """The largest CONNECT that there can be: 327 KB each. Who sends it and leaves costs nothing more."""
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=400_000)
    broker = start_broker(f'passwords = "{passwords}"\nallow_anonymous = true\nworkers = 1\nsys_interval = 0.1\n')
    RawClient.connected(broker.address, "ann", username="ann", password=b"secret").disconnect()
    before = broker.rss()
    large = Will("t" * 65_535, b"x" * 65_535)

    for round in range(6):
        flood = [RawClient(broker.address) for _ in range(120)]
        for i, client in enumerate(flood):
            password = b"%d %d" % (round, i) + b"p" * 65_000
            client.send(connect("c" * 65_535, username="u" * 65_535, password=password, will=large))
        if not round:
            why = "too many passwords from this address wait to be checked"
            broker.wait_for("client refused", code=3, reason=why)
            with RawClient(broker.address, source="127.0.0.2") as ann:  # others have room
                ann.send(connect("other", username="ann", password=b"other"))
                ann.expect(connack(4))
        for client in flood:
            client.close()
        wait_for_count(broker.address, "clients/refused", 120 * (round + 1))
    grown = broker.rss() - before
    print(f"{grown >> 20} MiB more than before, after 720 CONNECTs of 327 KB")
    assert grown < 150 << 20
    start = time.monotonic()
    with RawClient(broker.address) as ann:  # nobody is before it but what was begun
        ann.send(connect("last", username="ann", password=b"wrong"))
        ann.expect(connack(4))
    assert time.monotonic() - start < 10


def test_no_name_that_a_client_has_reaches_the_log_as_it_is(shared_broker: BrokerProcess, address: Address) -> None:
    """Log injection: control characters (C0 and C1), an ANSI escape, a line separator, a change of direction."""
    evil = "e\x1b[31m\x9b32m\u2028\u202evil\u2066\x7f\ufeff"
    with RawClient.connected(address, evil, username=evil) as client:
        client.send(publish(f"$SYS/{evil}", b"x", 1))
        client.expect(puback(1))
        client.ping()
    shared_broker.wait_for("publish refused: not authorised", client=evil, user=evil, topic=f"$SYS/{evil}")
    (line, *_) = [line for line in shared_broker.lines if "u202evil" in line]
    assert line.isascii()
    assert line[:-1].isprintable()
