"""A certification runner for MQTT brokers: `python3 -m conformance [mqtt://host:port]`.

Installed, it is the package `selectmq_conformance` with the command `selectmq-conformance`; under pytest it is
`pytest -p selectmq_conformance --pyargs selectmq_conformance.suite --mqtt-target mqtt://host:port`.

It puts a broker on trial, with paho-mqtt clients and raw bytes, against the normative statements of MQTT 3.1.1. It
knows nothing of any broker's inside; of the one in this repository it imports nothing.

How to add a test: write a function into the file of `suite/` that is named after the section.

    from .. import expect, packets
    from ..marks import needs, verifies
    from ..trial import Trial

    @verifies("MQTT-3.12.4-1")                         # the statements that the test judges: every one that any FAIL
    @pytest.mark.parametrize("times", [1, 100])        # of it would break, and no other
    def test_ping_is_answered(trial: Trial, times: int) -> None:    # takes `trial` and its parameters, no fixtures
        \"\"\"Every PINGREQ gets a PINGRESP.\"\"\"         # what the broker must do: the report shows this line
        raw = trial.raw()                              # a connection made of bytes; trial.client() is paho-mqtt's
        raw.connect(trial.client_id())                 # brings about the situation: INCONCLUSIVE if that fails
        raw.send(packets.pingreq() * times)            # what the test is about
        for _ in range(times):
            expect.packet(raw, packets.PINGRESP)       # judges: FAIL with expected, actual and the timeline

- `raw.*` and `client.*` bring about situations, `expect.*` judges. Never judge with the former: the broker would be
  INCONCLUSIVE, not guilty. Never prepare with the latter: it would be guilty of the wrong statement.
- Names are the test's own: `trial.topic("a/b")`, `trial.client_id()`. What a test leaves on the broker is removed.
- Silence is proved, not waited for: `expect.silence(receiver, publisher, topic, qos, about="...")` publishes a control
  message through the same subscription, and nothing may come before it. `expect.until_control` returns what came.
- The end of a connection is proved: `expect.closed(raw)`, or `expect.dropped(raw)` where nothing may come before.
- `trial.warn("...")`: a SHOULD is not followed, or the broker does what few do; the test goes on, and ends with WARN.
  `trial.note("...")`: something measured. `raise NotApplicable(...)` or `Inconclusive(...)` of `verdicts`: say which
  capability is missing and how that was seen, or what a profile would need.
- `@needs("qos-2", "authenticated", "restart")`: see `capabilities.NEEDS`; an endpoint of the profile is then there as
  `trial.raw(endpoint="authenticated")`, with its credentials in `raw.endpoint`.
- Tests run side by side, in threads. `@alone` for one that disturbs others (`trial.broker.restart()`), `@waits(6)` for
  one that must wait for the broker's clock, so that it begins first. No fixed sleeps; measure, and be generous.
- A test must be able to fail: give `tests/conformance/faulty/faults.py` the fault that it finds.
- A rule that the specification states without a label gets a line in `statements/mqtt-3.1.1-unlabelled.tsv`.

A FAIL accuses: before you let a test fail a known broker, read the specification's text again.

(PYTEST_DONT_REWRITE: or pytest would warn a program that has loaded this before it starts pytest.)
"""

#: What `-p selectmq_conformance` brings. pytest reads it; nobody else does, and nothing is imported before.
pytest_plugins = (f"{__name__}.plugin",)
