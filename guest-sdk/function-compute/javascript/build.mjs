// Makes one module of a folder that was written for Function Compute's Node.js runtime, for componentize-qjs.
//
// Usage: node build.mjs FOLDER OUT HANDLER...
//
// FOLDER has the user's files and, below `node_modules`, the packages of its `package.json`; each HANDLER is an entry such
// as `index.handler`. Standard output gets a line for each package that cannot run.

import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

/** Modules of Node.js that are written for any engine. */
const PORTABLE = [
  "assert", "buffer", "constants", "crypto", "diagnostics_channel", "events", "path", "process", "punycode", "querystring",
  "stream", "string_decoder", "timers", "tty", "url", "util", "zlib",
];
/** Those that are written here. */
const OWN = ["async_hooks", "fs", "http", "https", "os"];
/** Packages that find machine code. */
const FINDERS = ["bindings", "node-gyp-build", "node-pre-gyp", "@mapbox/node-pre-gyp", "prebuild-install"];

const [, , folder, out, ...handlers] = process.argv;
const code = resolve(folder);
const here = dirname(fileURLToPath(import.meta.url));
const packages = resolve(here, "../../node_modules");
const portable = join(packages, "@jspm/core/nodelibs/browser");
const unable = new Map();

/** The files of the folder, without packages, as the function can read them. */
function listed(at, files = {}) {
  for (const entry of readdirSync(at, { withFileTypes: true })) {
    const path = join(at, entry.name);
    if (entry.name === "node_modules" || entry.name === ".git") continue;
    if (entry.isDirectory()) listed(path, files);
    else files[relative(code, path)] = readFileSync(path).toString("base64");
  }
  return files;
}

function entry() {
  const paths = [...new Set(handlers.map((handler) => handler.slice(0, handler.lastIndexOf("."))))];
  const loads = paths.map((path) => {
    const file = [".js", ".cjs", ".mjs"].map((ending) => join(code, path + ending)).find(existsSync);
    if (file === undefined) throw new Error(`there is no ${path}.js in the folder of the code, which a handler names`);
    return `${JSON.stringify(path)}: () => import(${JSON.stringify(file)}),`;
  });
  const component = JSON.stringify(join(here, "component.js"));
  return `import { serve } from ${component};
    export const { handler, initializer, preFreeze, preStop } = serve({ ${loads.join("\n")} });`;
}

/** The package that a file belongs to; none for the user's own. */
function packageOf(path) {
  const parts = path.split("/node_modules/");
  if (parts.length === 1) return undefined;
  const [first, second] = parts.at(-1).split("/");
  return first.startsWith("@") ? `${first}/${second}` : first;
}

const node = {
  name: "node",
  setup(esbuild) {
    const isBuiltin = (path) => builtinModules.includes(path.replace(/^node:/, ""));
    esbuild.onResolve({ filter: /.*/ }, ({ path, importer, namespace }) => {
      if (path.startsWith("wasi:") || path.startsWith("dormouse:function/")) return { path, external: true };
      if (path === "dormouse:entry" || path === "dormouse:files") return { path, namespace: "made" };
      if (path.startsWith("dormouse:node/")) return { path: join(here, "node", `${path.slice(14)}.js`) };
      if (path.endsWith(".node") || FINDERS.includes(path)) {
        const name = packageOf(importer) ?? relative(code, importer);
        unable.set(name, "it has machine code, which a component cannot run");
        return { path: name, namespace: "unable" };
      }
      // A package of this name comes before Node.js's own, unless the path says which is meant.
      if (!isBuiltin(path) || namespace === "made") return undefined;
      const own = path.replace(/^node:/, "");
      if (importer.startsWith(portable) && PORTABLE.includes(own)) return { path: join(portable, `${own}.js`) };
      return { path: own, namespace: "builtin" };
    });
    esbuild.onLoad({ filter: /.*/, namespace: "made" }, ({ path }) => {
      if (path === "dormouse:entry") return { contents: entry(), resolveDir: here };
      return { contents: `export const files = ${JSON.stringify(listed(code))};` };
    });
    esbuild.onLoad({ filter: /.*/, namespace: "unable" }, ({ path }) => {
      const text = `\`${path}\` cannot run: it has machine code, which a component cannot run`;
      return { contents: `throw new Error(${JSON.stringify(text)});` };
    });
    esbuild.onLoad({ filter: /.*/, namespace: "builtin" }, ({ path }) => ({ contents: builtin(path), resolveDir: here }));
    // CommonJS knows where it is.
    esbuild.onLoad({ filter: /\.c?js$/, namespace: "file" }, ({ path }) => {
      if (!path.startsWith(`${code}/`)) return undefined;
      const at = JSON.stringify(`/code/${relative(code, path)}`);
      const contents = readFileSync(path, "utf8");
      if (!/__dirname|__filename/.test(contents)) return undefined;
      return { contents: `var __filename = ${at}, __dirname = ${at}.replace(/\\/[^/]*$/, "");${contents}` };
    });
  },
};

/** The module that stands for one of Node.js's. */
function builtin(name) {
  const [base, below] = name.split("/");
  if (name === "fs/promises") return `module.exports = require("dormouse:node/fs").promises;`;
  if (name === "timers/promises") {
    return `exports.setTimeout = (ms, value) => new Promise((done) => setTimeout(() => done(value), ms));`;
  }
  if (OWN.includes(name)) return `module.exports = require("dormouse:node/${name}");`;
  if (name === "process") return "module.exports = globalThis.process;";
  if (PORTABLE.includes(base)) {
    const file = join(portable, below === undefined ? `${base}.js` : `${base}/${below}.js`);
    // Its constants are its own names there.
    const zlib = `const own = require(${JSON.stringify(file)}); module.exports = { ...own.default, constants: own.default };`;
    if (name === "zlib") return zlib;
    if (existsSync(file)) return `const own = require(${JSON.stringify(file)}); module.exports = own.default ?? own;`;
  }
  const text = `\`${name}\` of Node.js does not work in a component`;
  return `const fail = function () { throw new Error(${JSON.stringify(text)}); };
    module.exports = new Proxy(fail, { get: (own, name) => (name === "__esModule" ? undefined : name in own ? own[name] : fail) });`;
}

/** Numbers in the base64 of source maps. */
function* numbers(text) {
  let [value, shift] = [0, 0];
  for (const letter of text) {
    const digit = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".indexOf(letter);
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    yield value & 1 ? -(value >> 1) : value >> 1;
    [value, shift] = [0, 0];
  }
}

/**
 * Where each line of the user's files begins in the module: its line and column there, the file's number, and the line in
 * the file. What belongs to no file of theirs has the number -1.
 */
function lines(map) {
  const files = map.sources.map((source) => {
    const path = relative(code, resolve(dirname(out), source.replace(/^[a-z]+:(?=\/)/, "")));
    return path.startsWith("..") || source.includes("builtin:") || source.includes("made:") ? null : `/code/${path}`;
  });
  const at = [];
  let [file, line] = [0, 0];
  let last = "";
  map.mappings.split(";").forEach((segments, row) => {
    let column = 0;
    for (const segment of segments.split(",")) {
      const [ahead, files_ahead, lines_ahead] = numbers(segment);
      if (ahead === undefined) continue;
      column += ahead;
      file += files_ahead ?? 0;
      line += lines_ahead ?? 0;
      const own = files_ahead !== undefined && files[file] !== null ? file : -1;
      const here = own === -1 ? "" : `${own}:${line}`;
      if (here === last) continue;
      last = here;
      at.push([row + 1, column, own, line + 1]);
    }
  });
  return { files, at };
}

try {
  const made = await build({
    entryPoints: ["dormouse:entry"],
    absWorkingDir: code,
    outfile: resolve(out),
    bundle: true,
    format: "esm",
    platform: "neutral",
    target: "es2022",
    mainFields: ["main", "module"],
    conditions: ["node", "require", "import", "default"],
    loader: { ".html": "text", ".txt": "text" },
    define: { "process.env.NODE_DEBUG": "undefined" },
    nodePaths: [packages],
    plugins: [node],
    legalComments: "none",
    logLevel: "silent",
    sourcemap: "external",
    write: false,
    minifySyntax: true,
    minifyWhitespace: true,
  });
  const [map, module] = ["map", "js"].map((ending) => made.outputFiles.find(({ path }) => path.endsWith(ending)));
  // Behind the module, so that nothing in it moves.
  writeFileSync(out, `${module.text}\nglobalThis.dormouseLines = ${JSON.stringify(lines(JSON.parse(map.text)))};\n`);
} catch (error) {
  const isCode = (at) => at !== null && !relative(code, resolve(code, at.file)).startsWith("..");
  const said = error.errors?.map(({ text, location: at }) => (isCode(at) ? `${at.file}:${at.line}: ${text}` : text));
  console.error((said ?? [error.message]).join("\n"));
  process.exit(1);
}
for (const [name, why] of unable) console.log(`the package \`${name}\` cannot run: ${why}`);
