// How the sequences of a generation are kept as a session.

/** Says how long a generation is kept, and with how much room. */
export interface SessionRetention {
  /** Idle time after which it may be dropped, in seconds. Unset means the server's default. */
  ttlS?: number | undefined;
  /**
   * Most tokens that a row will hold, prompt and generated ones included. Unset means the
   * server's default.
   */
  maxLength?: number | undefined;
}

/** Returns the fields of the wire form; true means the server's defaults. */
export function retentionFields(keep: SessionRetention | boolean | undefined): object | undefined {
  if (!keep) return undefined;
  if (keep === true) return {};
  const { ttlS: ttl, ...others } = keep;
  return { ttl, ...others };
}
