// Makes the component: the world beside the interfaces that jco brings, and the bundle.

import { cp, mkdir, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

await mkdir("build/wit/deps", { recursive: true });
await cp("world.wit", "build/wit/world.wit");
await cp("node_modules/@bytecodealliance/jco/lib/wit/builtin/0.2.12", "build/wit/deps", { recursive: true });
const { component } = await componentize({ sourcePath: "build/app.js", witPath: "build/wit", worldName: "server" });
await writeFile("build/hono.wasm", component);
