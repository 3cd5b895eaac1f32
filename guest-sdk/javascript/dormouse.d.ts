// What functions in TypeScript see of the SDK, and of what it adds to QuickJS.

/** What the host tells an export about the call it is in. */
export interface Context {
  /** The request's identifier, unique on this host unless the caller chose it. Hooks have one of their own. */
  requestId: string;
  /** The function's name. */
  function: string;
  /** The deployed version that runs: `LATEST`, or a number. */
  version: string;
  /** The instance's identifier: the same in every call into this instance, in logs and in the bill. */
  instanceId: string;
  /** The memory this instance may use, in MB (1 MB is 1,048,576 bytes). */
  memoryMb: number;
  /** When the host gives up on this call, in milliseconds since 1970. A suspension moves the real deadline, not this. */
  deadlineMs: number;
  /** Which attempt at this request this is, starting with 1. */
  attempt: number;
  /** The W3C trace context of the caller, when it sent one. */
  traceparent: string | null;
  /** The milliseconds left until the deadline; zero once it has passed. */
  remainingMs(): number;
}

/** A function. An error's message reaches the caller of `handler`; its stack goes to the function's log. */
export interface Functions {
  /** Answers a request. */
  handler(ctx: Context, event: Uint8Array): string | Uint8Array | Promise<string | Uint8Array>;
  /** Runs once, before the first request. An error drops the instance. */
  initializer?(ctx: Context): void | Promise<void>;
  /** Runs before each parking, after the callers got their replies: the place to flush. */
  preFreeze?(ctx: Context): void | Promise<void>;
  /** Runs once before the end: the place to close sessions. */
  preStop?(ctx: Context): void | Promise<void>;
}

/** The exports of the contract for a function; a module exports them under these names. */
export function serve(functions: Functions): {
  handler(ctx: object, event: Uint8Array): Promise<Uint8Array>;
  initializer(ctx: object): Promise<void>;
  preFreeze(ctx: object): Promise<void>;
  preStop(ctx: object): Promise<void>;
};

/** The UTF-8 bytes of a string. */
export function encode(string: string): Uint8Array;
/** The string of UTF-8 bytes; with `fatal`, a `TypeError` if they are not UTF-8. */
export function decode(bytes: Uint8Array, fatal?: boolean): string;

interface FetchOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array | ArrayBuffer;
  /** How long to wait for the connection, for the first byte, and between two bytes, each anew; in milliseconds. */
  timeoutMs?: number;
}

interface FetchResponse {
  readonly status: number;
  /** Whether the status is one of the 200s. */
  readonly ok: boolean;
  /** By their names in lower case; of several with one name, joined by commas. */
  readonly headers: Map<string, string>;
  bytes(): Promise<Uint8Array>;
  arrayBuffer(): Promise<ArrayBuffer>;
  text(): Promise<string>;
  json(): Promise<any>;
}

declare global {
  /** Sends a request to one of the function's `allowed-outbound-hosts`. No response is a `TypeError`. */
  function fetch(url: string, options?: FetchOptions): Promise<FetchResponse>;
  function setTimeout(callback: (...args: any[]) => void, ms?: number, ...args: any[]): number;
  function setInterval(callback: (...args: any[]) => void, ms?: number, ...args: any[]): number;
  function clearTimeout(id: number | undefined): void;
  function clearInterval(id: number | undefined): void;
  const console: Record<"debug" | "error" | "info" | "log" | "trace" | "warn", (...values: unknown[]) => void>;
  const process: {
    /** The environment that the function is configured with. Read it in a call, not while the module is loaded. */
    readonly env: Record<string, string | undefined>;
    /** Ends the instance at once: its requests fail, and no hook is called. */
    exit(code?: number): never;
  };
  const crypto: {
    getRandomValues<T extends ArrayBufferView>(array: T): T;
    randomUUID(): string;
  };
  const performance: { now(): number };
  class TextEncoder {
    readonly encoding: string;
    encode(string?: string): Uint8Array;
  }
  class TextDecoder {
    constructor(label?: string, options?: { fatal?: boolean });
    readonly encoding: string;
    decode(input?: ArrayBuffer | ArrayBufferView): string;
  }
}
