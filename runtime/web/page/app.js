// The page of a server: its wire is a WebSocket, and the server may ask for a token.

import { startPage } from "./page.js";
import { Wire } from "./wire.js";

const entrance = document.getElementById("entrance");
const token = document.getElementById("token");

// where visitors may teach: the server's hello says so
let panel = null;

const { wire, capture, fail } = startPage(
  (take, change) =>
    new Wire(async (answer) => {
      if (answer.type !== "lesson") take(answer);
      if (answer.type === "hello" && answer.teach && !panel) panel = import("./teach.js").then(({ TeachPanel }) => new TeachPanel(wire, capture));
      if (panel && answer.type !== "result") (await panel).take(answer);
    }, change),
  (state, reason) => {
    if (panel && state !== "live") panel.then((one) => one.take(null));
    entrance.hidden = state !== "token";
    if (state !== "token") return;
    token.focus();
    if (reason) fail(reason);
  },
);

entrance.onsubmit = (event) => {
  event.preventDefault();
  wire.enter(token.value);
};
