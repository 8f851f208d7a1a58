// Lays the package avgn-web out, from the same sources: node library.mjs FOLDER, then npm pack FOLDER
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { build } from "esbuild";

import { COMMON } from "./common.mjs";

const PAGE = resolve("../page");
const ROOT = resolve("../../..");
const folder = resolve(process.argv[2] ?? "package");
const dist = join(folder, "dist");

// the page's own modules, of which the sources know the types
const fromPage = {
  name: "page",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/(feed|words-en)\.js$/ }, ({ path }) => ({ path: join(PAGE, path) }));
  },
};

mkdirSync(dist, { recursive: true });
await build({
  ...COMMON,
  // whoever packs it again makes it small, and reads what is written to packers inside of import()
  minify: false,
  entryPoints: { index: "src/index.ts", worker: "src/worker.ts" },
  outdir: dist,
  plugins: [fromPage],
});
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.library.json", "--outDir", dist], { stdio: "inherit" });
keep("index");
copyFileSync(join(PAGE, "worklet.js"), join(dist, "worklet.js"));
copyFileSync("README.md", join(folder, "README.md"));
for (const name of ["LICENSE", "NOTICE"]) copyFileSync(join(ROOT, name), join(folder, name));

const { name, version, description, license, type, dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
const facts = {
  name,
  version,
  description,
  keywords: ["audio-visual", "sound localization", "onnx", "webassembly"],
  license,
  type,
  exports: { ".": { types: "./dist/index.d.ts", default: "./dist/index.js" }, "./dist/*": "./dist/*" },
  types: "./dist/index.d.ts",
  sideEffects: false,
  dependencies,
};
writeFileSync(join(folder, "package.json"), `${JSON.stringify(facts, null, 2)}\n`);

/** Remove the types that the package's own do not lead to. */
function keep(first) {
  const reached = new Set([first]);
  for (const module of reached) {
    const text = readFileSync(join(dist, `${module}.d.ts`), "utf8");
    for (const [, other] of text.matchAll(/from "\.\/([\w-]+)\.js"/g)) reached.add(other);
  }
  for (const file of readdirSync(dist)) {
    if (file.endsWith(".d.ts") && !reached.has(file.slice(0, -".d.ts".length))) rmSync(join(dist, file));
  }
}
