# One worker behind one socket; its address is given on the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);

const hello :Workerd.Worker = (
  modules = [(name = "main", esModule = embed "workerd.js")],
  compatibilityDate = "2026-01-01"
);
