import { Strategy as PassportStrategy } from 'passport-strategy'

/** The parts of a request that Passport and these strategies use. */
export interface PassportRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly ip?: string | undefined
  readonly socket?: { readonly remoteAddress?: string | undefined } | undefined
  /** Set by Passport or by the application. */
  logIn?(user: unknown, options: unknown, done: unknown): unknown
  /** Express's `next` for the middleware that runs now. */
  next?: ((error: unknown) => void) | undefined
}

/**
 * The actions that Passport sets on a strategy for one request. Read them at once: if the application passes the
 * strategy instance itself to Passport, the next request overwrites them before this one is decided.
 */
export interface Actions {
  success(user: unknown, info?: unknown): void
  /** Passport sends a challenge that is a string. */
  fail(challenge: string | object | null | undefined, status?: number): void
  error(error: unknown): void
}

/** What `passport.use` requires of a strategy. Declared here, so that users need no types of another package. */
interface PassportsStrategy {
  name?: string
}

// Passport runs `authenticate` on `Object.create(strategy)`, where ES `#private` members cannot be read: hence
// TypeScript's `private` in strategies, and nowhere else.
export const StrategyBase = PassportStrategy as unknown as new () => PassportsStrategy
