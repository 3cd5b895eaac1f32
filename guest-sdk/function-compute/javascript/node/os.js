// There is no machine to tell of.

module.exports = {
  EOL: "\n",
  arch: () => "wasm32",
  cpus: () => [],
  endianness: () => "LE",
  freemem: () => 0,
  homedir: () => "/tmp",
  hostname: () => "localhost",
  loadavg: () => [0, 0, 0],
  networkInterfaces: () => ({}),
  platform: () => "linux",
  release: () => "",
  tmpdir: () => "/tmp",
  totalmem: () => 0,
  type: () => "Linux",
  uptime: () => performance.now() / 1000,
};
