// Builds what the page loads, into built/ or the folder that is named: node build.mjs [FOLDER]
import { build } from "esbuild";

import { COMMON } from "./common.mjs";

await build({
  ...COMMON,
  entryPoints: { local: "src/local.ts", worker: "src/worker.ts" },
  outdir: process.argv[2] ?? "built",
  // these lie beside what is built: the page's own modules
  external: ["./page.js", "./reasons.js", "./words.js"],
});
