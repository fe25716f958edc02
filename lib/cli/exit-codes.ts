/** What the command ends with. Scripts rely on these numbers: once released, they keep their meaning. */
export const EXIT = Object.freeze({
  ok: 0,
  /** It did not work, or not for all; `doctor` found a problem. */
  failed: 1,
  /** A wrong command, option, value or configuration. Nothing was done. */
  usage: 2,
  /** There is no such key. */
  notFound: 3,
  /** `verify` or `explain` refused the key. */
  refused: 4,
  /** The store or Redis cannot be used: unreachable, not migrated, read-only, configured differently from others. */
  unavailable: 5,
  /** The key was revoked, rotated or changed meanwhile, or exists already. */
  conflict: 6,
  /** Ended by Ctrl-C or SIGTERM. */
  interrupted: 130,
  /** The reader of standard output went away. */
  closedOutput: 141,
})
