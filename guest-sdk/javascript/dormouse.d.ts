// Types of the SDK, and of what it adds to QuickJS.

/** What the host tells a function about a call. */
export interface Context {
  /** The request's identifier, unique on this host unless the caller chose it. Each hook call has its own. */
  requestId: string;
  /** The function's name. */
  function: string;
  /** The deployed version that runs: `LATEST`, or a number. */
  version: string;
  /** The instance's identifier: the same in every call into this instance, in logs and in the bill. */
  instanceId: string;
  /** The memory this instance may use, in MB (1 MB is 1,048,576 bytes). */
  memoryMb: number;
  /** The call's deadline, in milliseconds since 1970. A suspension moves the real deadline, but not this. */
  deadlineMs: number;
  /** Which attempt at this request this is, starting with 1. */
  attempt: number;
  /** The caller's W3C trace context, if it sent one. */
  traceparent: string | null;
  /** The milliseconds left until the deadline; zero once it has passed. */
  remainingMs(): number;
}

/** A function. An error's message is sent to the caller of `handler`; its stack is written to the function's log. */
export interface Functions {
  /** Answers a request. */
  handler(ctx: Context, event: Uint8Array): string | Uint8Array | Promise<string | Uint8Array>;
  /** Runs once, before the first request. An error drops the instance. */
  initializer?(ctx: Context): void | Promise<void>;
  /** Runs before each freeze, after the callers got their replies. Flush here. */
  preFreeze?(ctx: Context): void | Promise<void>;
  /** Runs once before the instance is stopped. Close sessions here. */
  preStop?(ctx: Context): void | Promise<void>;
}

/** The exports of the contract for a function. The module must export them under these names. */
export function serve(functions: Functions): {
  handler(ctx: object, event: Uint8Array): Promise<Uint8Array>;
  initializer(ctx: object): Promise<void>;
  preFreeze(ctx: object): Promise<void>;
  preStop(ctx: object): Promise<void>;
};

/** The UTF-8 bytes of a string. */
export function encode(string: string): Uint8Array;
/** The string of UTF-8 bytes. With `fatal`, throws a `TypeError` if they are not UTF-8. */
export function decode(bytes: Uint8Array, fatal?: boolean): string;

interface FetchOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array | ArrayBuffer;
  /** How long to wait, in milliseconds, for the connection, for the first byte, and between two bytes; each wait has this timeout. */
  timeoutMs?: number;
}

interface FetchResponse {
  readonly status: number;
  /** True if the status is 200 to 299. */
  readonly ok: boolean;
  /** By lower-case name. Several with the same name are joined by commas. */
  readonly headers: Map<string, string>;
  bytes(): Promise<Uint8Array>;
  arrayBuffer(): Promise<ArrayBuffer>;
  text(): Promise<string>;
  json(): Promise<any>;
}

declare global {
  /** Sends a request to one of the function's `allowed-outbound-hosts`. Throws a `TypeError` if no response came. */
  function fetch(url: string, options?: FetchOptions): Promise<FetchResponse>;
  function setTimeout(callback: (...args: any[]) => void, ms?: number, ...args: any[]): number;
  function setInterval(callback: (...args: any[]) => void, ms?: number, ...args: any[]): number;
  function clearTimeout(id: number | undefined): void;
  function clearInterval(id: number | undefined): void;
  const console: Record<"debug" | "error" | "info" | "log" | "trace" | "warn", (...values: unknown[]) => void>;
  const process: {
    /** The function's configured environment. Read it in a call, not while the module is loaded. */
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
