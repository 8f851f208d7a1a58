// Keeps the whole page on the device, and adds the headers that threads need where the host sends none.

const { version: VERSION, code: CODE, files: FILES, policy: POLICY } = "@SITE@";
const OWN = `avgn ${registration.scope} `;
const NAME = OWN + VERSION;
const KNOWN = new Set(FILES.map((name) => new URL(name, registration.scope).href));
const HEADERS = {
  "content-security-policy": POLICY,
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

addEventListener("install", (event) => {
  const fresh = CODE.map((name) => new Request(name, { cache: "no-cache" }));
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(fresh)));
});

addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter((name) => name.startsWith(OWN) && name !== NAME);
      await Promise.all(old.map((name) => caches.delete(name)));
      await clients.claim();
    })(),
  );
});

// a page that does not run makes way for a newer version
addEventListener("message", ({ data }) => {
  if (data === "activate") skipWaiting();
});

addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  address.search = address.hash = "";
  if (address.href === registration.scope) address.pathname += "index.html";
  if (event.request.method === "GET" && KNOWN.has(address.href)) event.respondWith(answer(event, address.href));
});

async function answer(event, address) {
  // "reload": what is kept was found to be broken
  const isBroken = event.request.cache === "reload";
  // a disk that is full or not given keeps the page from working offline, and from nothing else
  const cache = await caches.open(NAME).catch(() => null);
  const kept = isBroken ? undefined : await cache?.match(address).catch(() => undefined);
  if (kept) return headed(kept);
  const fetched = await fetch(address, { cache: isBroken ? "reload" : "no-cache" });
  if (cache && fetched.status === 200) event.waitUntil(cache.put(address, fetched.clone()).catch(() => {}));
  return headed(fetched);
}

function headed(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
