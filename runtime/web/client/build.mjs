// Builds what the page loads, into built/ or the folder that is named: node build.mjs [FOLDER]
import { build } from "esbuild";

await build({
  entryPoints: { local: "src/local.ts", worker: "src/worker.ts" },
  outdir: process.argv[2] ?? "built",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  // these lie beside what is built: the page's own modules, and the runtime as its package ships it
  external: ["./page.js", "./reasons.js", "./words.js", "./ort/ort.js"],
});
