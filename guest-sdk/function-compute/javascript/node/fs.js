// The files of the folder below `/code`, and `/tmp` in memory: a component has no others.

const path = require("path");

const { files } = require("dormouse:files");

const contents = new Map();
const folders = new Set(["/code", "/tmp"]);
for (const name of Object.keys(files)) {
  for (let folder = path.dirname(`/code/${name}`); !folders.has(folder); folder = path.dirname(folder)) folders.add(folder);
}

const at = (name) => path.resolve("/code", String(name?.pathname ?? name));

function failure(code, call, name) {
  const words = { ENOENT: "no such file or directory", EROFS: "read-only file system", EEXIST: "file already exists" };
  const also = { EISDIR: "illegal operation on a directory", ENOTEMPTY: "directory not empty" };
  return Object.assign(new Error(`${code}: ${words[code] ?? also[code]}, ${call} '${name}'`), { code, path: name });
}

function has(file) {
  return contents.has(file) || (file.startsWith("/code/") && Object.hasOwn(files, file.slice(6)));
}

function read(file) {
  if (!contents.has(file)) contents.set(file, Buffer.from(files[file.slice(6)], "base64"));
  return contents.get(file);
}

function writable(call, name) {
  const file = at(name);
  if (!file.startsWith("/tmp/")) throw failure("EROFS", call, file);
  if (!folders.has(path.dirname(file))) throw failure("ENOENT", call, file);
  return file;
}

const encoding = (options) => (typeof options === "string" ? options : options?.encoding);

const sync = {
  accessSync(name) {
    sync.statSync(name);
  },
  appendFileSync(name, data) {
    const file = writable("open", name);
    contents.set(file, Buffer.concat([contents.get(file) ?? Buffer.alloc(0), Buffer.from(data)]));
  },
  existsSync: (name) => has(at(name)) || folders.has(at(name)),
  lstatSync: (name) => sync.statSync(name),
  mkdirSync(name, options) {
    const file = at(name);
    if (folders.has(file)) {
      if (options?.recursive) return;
      throw failure("EEXIST", "mkdir", file);
    }
    if (options?.recursive) sync.mkdirSync(path.dirname(file), options);
    folders.add(writable("mkdir", name));
  },
  readdirSync(name) {
    const folder = at(name);
    if (!folders.has(folder)) throw failure("ENOENT", "scandir", folder);
    const all = [...Object.keys(files).map((file) => `/code/${file}`), ...contents.keys(), ...folders];
    const below = all.filter((file) => file.startsWith(`${folder}/`));
    return [...new Set(below.map((file) => file.slice(folder.length + 1).split("/")[0]))].sort();
  },
  readFileSync(name, options) {
    const file = at(name);
    if (folders.has(file)) throw failure("EISDIR", "read", file);
    if (!has(file)) throw failure("ENOENT", "open", file);
    const bytes = Buffer.from(read(file));
    return encoding(options) ? bytes.toString(encoding(options)) : bytes;
  },
  realpathSync: (name) => (sync.statSync(name), at(name)),
  renameSync(from, to) {
    const [source, target] = [writable("rename", from), writable("rename", to)];
    if (!contents.has(source)) throw failure("ENOENT", "rename", source);
    contents.set(target, contents.get(source));
    contents.delete(source);
  },
  rmdirSync(name) {
    const folder = writable("rmdir", name);
    if (sync.readdirSync(folder).length > 0) throw failure("ENOTEMPTY", "rmdir", folder);
    folders.delete(folder);
  },
  statSync(name) {
    const file = at(name);
    const isFolder = folders.has(file);
    if (!isFolder && !has(file)) throw failure("ENOENT", "stat", file);
    return {
      isDirectory: () => isFolder,
      isFile: () => !isFolder,
      isSymbolicLink: () => false,
      mtime: new Date(0),
      mtimeMs: 0,
      size: isFolder ? 0 : read(file).length,
    };
  },
  unlinkSync(name) {
    if (!contents.delete(writable("unlink", name))) throw failure("ENOENT", "unlink", at(name));
  },
  writeFileSync(name, data) {
    contents.set(writable("open", name), Buffer.from(data));
  },
};

module.exports = { ...sync, constants: { F_OK: 0, R_OK: 4, W_OK: 2, X_OK: 1 }, promises: {} };
for (const [name, call] of Object.entries(sync)) {
  const own = name.slice(0, -"Sync".length);
  module.exports.promises[own] = async (...args) => call(...args);
  module.exports[own] = (...args) => {
    const callback = args.pop();
    const done = (...results) => queueMicrotask(() => callback(...results));
    if (own === "exists") return done(call(...args));
    let result;
    try {
      result = call(...args);
    } catch (error) {
      return done(error);
    }
    done(null, result);
  };
}
