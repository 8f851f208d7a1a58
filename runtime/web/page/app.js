// The page of a server: its wire is a WebSocket, and the server may ask for a token.

import { startPage } from "./page.js";
import { Wire } from "./wire.js";

const entrance = document.getElementById("entrance");
const token = document.getElementById("token");

const { wire, fail } = startPage(
  (take, change) => new Wire(take, change),
  (state, reason) => {
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
