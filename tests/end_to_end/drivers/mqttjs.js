// MQTT.js, driven by questions: in Node (node.js) and in a page (page.html). A question is an object with `number`, `do` and
// what that needs; the answer has the same number, with `answer` or `error`. python_clients.py understands the same questions.
// Owns: what a question means in MQTT.js. Must not know: how questions come.
"use strict";

function driver(mqtt, more = {}) {
  const clients = new Map();
  const versions = {
    "3.1": { protocolId: "MQIsdp", protocolVersion: 3 },
    "3.1.1": { protocolId: "MQTT", protocolVersion: 4 },
    "5": { protocolId: "MQTT", protocolVersion: 5 },
  };

  const actions = {
    connect({ client, url, version, clean, will, ca, properties }) {
      const { resolve, reject, promise } = later();
      const connection = mqtt.connect(url, {
        clientId: client,
        clean,
        ...versions[version],
        ...(will && { will: { ...will, ...(will.properties && { properties: taken(will.properties) }) } }),
        ...(properties && { properties: taken(properties) }),
        ...(ca && { ca }),
        reconnectPeriod: 0,
      });
      const messages = [];
      const waiting = [];
      clients.set(client, { connection, messages, waiting });
      connection.on("message", (topic, payload, { qos, retain, dup, properties }) => {
        const message = { topic, payload: payload.toString(), qos, retain, dup, properties: given(properties) };
        waiting.length ? waiting.shift()(message) : messages.push(message);
      });
      connection.once("connect", ({ returnCode, reasonCode, sessionPresent }) =>
        resolve({ code: returnCode ?? reasonCode, present: sessionPresent }),
      );
      connection.on("error", reject);
      connection.on("close", () => reject(new Error("the connection was closed")));
      return promise;
    },

    async subscribe({ client, filter, qos, properties }) {
      const granted = await clients.get(client).connection.subscribeAsync(filter, { qos, ...(properties && { properties }) });
      return granted.map((one) => one.qos);
    },

    async unsubscribe({ client, filter }) {
      await clients.get(client).connection.unsubscribeAsync(filter);
    },

    async publish({ client, topic, payload, qos, retain, properties }) {
      const options = { qos, retain, ...(properties && { properties: taken(properties) }) };
      await clients.get(client).connection.publishAsync(topic, payload, options);
    },

    message({ client }) {
      const { messages, waiting } = clients.get(client);
      return messages.length ? messages.shift() : new Promise((resolve) => waiting.push(resolve));
    },

    async disconnect({ client }) {
      await clients.get(client).connection.endAsync();
    },

    ...more,
  };

  return async ({ number, do: action, ...rest }) => {
    try {
      return { number, answer: (await actions[action](rest)) ?? null };
    } catch (error) {
      return { number, error: String(error) };
    }
  };
}

// A buffer is a text in questions and answers, a user property that comes once or more often is a list, and what comes
// without a prototype gets one.
function taken({ correlationData, ...properties }) {
  if (correlationData === undefined) return properties;
  // In a page, a Buffer is a Uint8Array.
  const bytes = new TextEncoder().encode(correlationData);
  return { ...properties, correlationData: typeof Buffer === "undefined" ? bytes : Buffer.from(bytes) };
}

function given({ correlationData, userProperties, subscriptionIdentifier, ...properties } = {}) {
  const found = { ...properties };
  if (correlationData) found.correlationData = new TextDecoder().decode(correlationData);
  if (userProperties) {
    found.userProperties = Object.fromEntries(Object.entries(userProperties).map(([key, value]) => [key, [value].flat()]));
  }
  if (subscriptionIdentifier) found.subscriptionIdentifier = [subscriptionIdentifier].flat();
  return found;
}

function later() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

if (typeof module !== "undefined") module.exports = { driver };
