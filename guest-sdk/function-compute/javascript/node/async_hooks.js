// Of asynchronous contexts only what needs none: callbacks that are run later as if at once.

class AsyncResource {
  constructor(type) {
    this.type = type;
  }

  runInAsyncScope(callback, self, ...args) {
    return callback.apply(self, args);
  }

  bind(callback) {
    return callback.bind(undefined);
  }

  emitDestroy() {
    return this;
  }

  static bind(callback) {
    return callback.bind(undefined);
  }
}

class AsyncLocalStorage {
  run() {
    throw new Error("`AsyncLocalStorage` of Node.js does not work in a component");
  }

  getStore() {}
}

module.exports = { AsyncLocalStorage, AsyncResource, executionAsyncId: () => 0, triggerAsyncId: () => 0 };
