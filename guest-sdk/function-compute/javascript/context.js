// What handlers and hooks are told, in the words of Function Compute's Node.js runtime.

import { consoleOf } from "./console.js";

export function context(ctx) {
  const { env } = globalThis.process;
  return {
    requestId: ctx.requestId,
    // Functions get none here.
    credentials: { accessKeyId: "", accessKeySecret: "", securityToken: "" },
    function: {
      name: env.FC_FUNCTION_NAME ?? ctx.function,
      handler: env.FC_FUNCTION_HANDLER ?? "",
      memory: ctx.memoryMb,
      timeout: Number(env.FC_FUNCTION_TIMEOUT ?? 0),
      initializer: env.FC_FUNCTION_INITIALIZER ?? "",
      initializationTimeout: Number(env.FC_INITIALIZATION_TIMEOUT ?? 0),
    },
    service: {
      name: env.FC_SERVICE_NAME ?? "",
      logProject: "",
      logStore: "",
      qualifier: ctx.version,
      versionId: ctx.version,
    },
    region: env.FC_REGION ?? "",
    accountId: env.FC_ACCOUNT_ID ?? "",
    retryCount: ctx.attempt - 1,
    tracing: { openTracingSpanContext: ctx.traceparent ?? "", openTracingSpanBaggages: {}, jaegerEndpoint: "" },
    logger: consoleOf(ctx.requestId),
  };
}
