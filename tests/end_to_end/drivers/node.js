// MQTT.js in Node: questions on standard input, answers on standard output, one a line. Ends with its input.
"use strict";
const { driver } = require("./mqttjs.js");

const answer = driver(require("mqtt"), { version: () => require("mqtt/package.json").version });

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => console.log(JSON.stringify(await answer(JSON.parse(line)))))
  .on("close", () => process.exit());
