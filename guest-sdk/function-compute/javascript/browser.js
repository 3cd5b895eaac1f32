// What stands for Node.js's modules was written for browsers, and needs these names of theirs. They must be there before it.

class AbortSignal {
  aborted = false;
  reason = undefined;
  onabort = null;
  #listeners = new Set();

  addEventListener(_, listener) {
    this.#listeners.add(listener);
  }

  removeEventListener(_, listener) {
    this.#listeners.delete(listener);
  }

  throwIfAborted() {
    if (this.aborted) throw this.reason;
  }

  static abort(signal, reason) {
    if (signal.aborted) return;
    signal.aborted = true;
    signal.reason = reason ?? Object.assign(new Error("This operation was aborted"), { name: "AbortError" });
    signal.onabort?.({ type: "abort", target: signal });
    for (const listener of signal.#listeners) listener({ type: "abort", target: signal });
  }
}

class AbortController {
  signal = new AbortSignal();

  abort(reason) {
    AbortSignal.abort(this.signal, reason);
  }
}

globalThis.AbortController ??= AbortController;
globalThis.AbortSignal ??= AbortSignal;
globalThis.navigator ??= { language: "en", userAgent: "" };
globalThis.self ??= globalThis;
