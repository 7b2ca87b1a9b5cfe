"""The rows: one table, one entry each. A new row of the benchmark is a new entry of WORKLOADS.

Owns: the name, the title and the size of each row, and what it needs of a broker.
Must not know: how a workload runs, how results are shown.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

from packets import Mqtt
from targets import Broker, Needs, TargetError
from transports import GeneratorError, Transport
from workloads import (
    Backlog,
    Clocked,
    Connects,
    Figures,
    Flow,
    Idle,
    Kind,
    Plan,
    Requests,
    Subscriptions,
    TooFewDescriptors,
)


class Versions(Enum):
    """In which versions of MQTT a row is measured."""

    ALL = "all, with properties and without"
    BARE = "all, without properties, as nothing is published"
    ONLY_5 = "5.0 alone, with the properties that it is about"


@dataclass(frozen=True)
class Workload:
    name: str  # as for --only
    title: str  # may hold fields of Plan
    kind: Kind
    durable: bool = False  # the broker is started so that Sessions outlive its process
    transport: Transport = Transport.TCP
    versions: Versions = Versions.ALL

    def in_version(self, mqtt: Mqtt) -> bool:
        if mqtt.properties:
            return self.versions is Versions.ALL
        return mqtt.level >= 5 or self.versions is not Versions.ONLY_5

    def needs(self, plan: Plan, mqtt: Mqtt) -> Needs:
        queued = plan.backlog if isinstance(self.kind, Backlog) else 0
        return Needs(mqtt, self.transport, self.durable, queued)

    def title_for(self, plan: Plan) -> str:
        return self.title.format(**dataclasses.asdict(plan))

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        """One round. Raises GeneratorError with one line that says what went wrong."""
        try:
            return self.kind.run(broker, plan)
        except TooFewDescriptors:
            raise
        except (GeneratorError, TargetError) as error:
            raise GeneratorError(f"{error}{broker.last_words()}") from None
        except OSError as error:
            raise GeneratorError(f"{type(error).__name__}: {error}{broker.last_words()}") from None


# Measured over every transport.
STREAM = Flow(1, 1, 1000)
PAIRS = Flow(200, 200, 200, paired=True)
FAN_OUT = Flow(1, 100, 100)

WORKLOADS = (
    Workload("one-to-one", "1 -> 1, QoS 0, 1000 under way", STREAM),
    Workload("pairs", "200 -> 200, QoS 0, one under way each", PAIRS),
    Workload("fan-in", "100 -> 1, QoS 0, 1000 under way in all", Flow(100, 1, 1000, burst=10)),
    Workload("fan-out-100", "1 -> 100, QoS 0, 100 under way", FAN_OUT),
    Workload("fan-out-1000", "1 -> 1000, QoS 0, 10 under way", Flow(1, 1000, 10)),
    Workload("large", "1 -> 1, QoS 0, 64 KiB payload, 16 under way", Flow(1, 1, 16, payload=65536)),
    Workload("qos1", "20 -> 20, QoS 1, 400 under way in all", Flow(20, 20, 400, paired=True, qos=1)),
    Workload("qos2", "20 -> 20, QoS 2, 400 under way in all", Flow(20, 20, 400, paired=True, qos=2)),
    Workload(
        "durable",
        "20 -> 20 persistent sessions, QoS 1, 400 under way in all, durable",
        Flow(20, 20, 400, paired=True, qos=1, persistent=True),
        durable=True,
    ),
    Workload("backlog", "{backlog:,} QoS 1 messages for an absent client, durable", Backlog(1000), durable=True),
    Workload(
        "subscriptions", "1 -> 9 that hold many subscriptions, 1 % wildcards, 1000 under way", Subscriptions(9, 1000)
    ),
    Workload(
        "shared-qos0",
        "20 -> one shared subscription of 20, QoS 0, 400 under way in all",
        Flow(20, 20, 400, burst=10, shared=True),
    ),
    Workload(
        "shared-qos1",
        "20 -> one shared subscription of 20, QoS 1, 400 under way in all",
        Flow(20, 20, 400, burst=10, qos=1, shared=True),
    ),
    Workload(
        "aliases",
        "1 -> 1, QoS 0, by topic alias, 1000 under way",
        Flow(1, 1, 1000, aliased=True),
        versions=Versions.ONLY_5,
    ),
    Workload("requests", "requests with responses, QoS 0, 100 under way", Requests(100), versions=Versions.ONLY_5),
    Workload("connects", "connect and disconnect, 16 under way", Connects(16), versions=Versions.BARE),
    Workload("tls", "TLS, 1 -> 1, QoS 0, 1000 under way", STREAM, transport=Transport.TLS),
    Workload("tls-pairs", "TLS, 200 -> 200, QoS 0, one under way each", PAIRS, transport=Transport.TLS),
    Workload("tls-fan-out", "TLS, 1 -> 100, QoS 0, 100 under way", FAN_OUT, transport=Transport.TLS),
    Workload(
        "tls-connects",
        "TLS, connect and disconnect, one at a time",
        Connects(1),
        transport=Transport.TLS,
        versions=Versions.BARE,
    ),
    Workload("ws", "WebSocket, 1 -> 1, QoS 0, 1000 under way", STREAM, transport=Transport.WEBSOCKET),
    Workload("ws-pairs", "WebSocket, 200 -> 200, QoS 0, one under way each", PAIRS, transport=Transport.WEBSOCKET),
    Workload("ws-fan-out", "WebSocket, 1 -> 100, QoS 0, 100 under way", FAN_OUT, transport=Transport.WEBSOCKET),
    Workload("idle", "{connections:,} idle connections", Idle(), versions=Versions.BARE),
    Workload("clocked", "{connections:,} connections, each publishing once a second, -> 1", Clocked()),
)
