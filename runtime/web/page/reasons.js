// What servers and workers say, in English, by kind: a sentence that is known is said in the page's language.

import { say } from "./words.js";

const KNOWN = [
  // of a server: runtime/web/session.py, door.py, protocols.py
  [/^the server is full: (?<count>\d+) visitors$/, "serverFull"],
  [/^others wait: come again$/, "serverBusy"],
  [/^(nothing|no hello) came for \d+ s$/, "serverIdle"],
  [/^the (engine|server) failed$/, "serverFailed"],
  [/^the visitor's clock jumped$/, "clockJumped"],
  [/^(more sound than time|too many resets|too many lessons|too many messages or bytes a second)$/, "tooFast"],
  [/^the visitor does not read its results$/, "tooSlow"],
  // of the worker: runtime/web/client/src
  [/^bundle\.json: bundle version (?<version>.*) is not known: this page reads version (?<known>\d+), /, "bundleVersion"],
  [/^bundle\.json: not a bundle: .*, got (?<value>.*): export the bundle again\.$/, "bundleForeign"],
  [/^bundle\.json: (?<rule>.*), got (?<value>.*): export the bundle again\.$/, "bundleRule"],
  [/^bundle\.json is not valid JSON: /, "bundleJson"],
  [/^bundle\.json is too large /, "bundleLarge"],
  [/^bundle\.json: decision (?<name>.*) is not known: /, "bundleDecision"],
  [/^This bundle holds no ONNX graphs: /, "bundleGraphs"],
  [/^Graph (?<name>.*) has sha256 (?<found>\w+)\.\.\., bundle\.json says (?<expected>\w+)\.\.\.: /, "graphHash"],
  [/^Graph (?<name>.*) can't be loaded \((?<reason>.*)\): /, "graphLoad"],
  [/^The (?<half>\w+) graph has no input (?<name>\w+): /, "graphInput"],
  [/^A graph gives no (?<name>\w+): /, "graphOutput"],
  [/^A graph gives (?<found>\d+) values of (?<name>\w+), bundle\.json says (?<wanted>.*): /, "graphSize"],
  [/^A graph gives (?<name>\w+) that are no numbers: /, "graphNumbers"],
  [/^(?<name>.*) can't be loaded: check the connection /, "fileLoad"],
  [/^(?<name>.*) is missing \(the host says (?<status>\d+)\): /, "fileMissing"],
  [/^(?<name>.*) can't be had \(the host says (?<status>\d+)\): /, "fileBusy"],
  [/^The connection broke while the model was loaded: /, "connectionBroke"],
  [/^There is not enough memory for the model: /, "noMemory"],
  [/^The model can't run in this browser \((?<reason>.*)\): /, "modelFailed"],
];

// A sentence of a known kind in the page's language; any other one as it is.
export function inWords(text) {
  for (const [pattern, key] of KNOWN) {
    const found = pattern.exec(text);
    if (found) {
      const { count, ...values } = found.groups ?? {};
      return say(key, count === undefined ? values : { ...values, count: Number(count) });
    }
  }
  return text;
}
