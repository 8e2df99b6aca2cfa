// The service config that clients of every language share. The balancing goes to grpc-js; what may
// be repeated, and how often, is followed by retries.ts, which knows which refusals will pass.

import { readFileSync } from "node:fs";

interface ServiceConfig {
  loadBalancingConfig: object[];
  methodConfig: {
    name: { service: string; method: string }[];
    retryPolicy: RetryPolicy;
  }[];
  retryThrottling: { maxTokens: number; tokenRatio: number };
}

interface RetryPolicy {
  maxAttempts: number;
  initialBackoff: string;
  maxBackoff: string;
  backoffMultiplier: number;
}

/** All of it. */
export const SERVICE_CONFIG = JSON.parse(
  readFileSync(new URL("../../../protos/service_config.json", import.meta.url), "utf8"),
) as ServiceConfig;

/** How often a call is made, and how long is waited before it is made again. */
export const POLICY = SERVICE_CONFIG.methodConfig[0]!.retryPolicy;

/** What a channel is told. */
export const BALANCING = JSON.stringify({
  loadBalancingConfig: SERVICE_CONFIG.loadBalancingConfig,
  methodConfig: [],
});
