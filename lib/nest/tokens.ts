/**
 * Injects the `keys` of `LatchkeyModule`.
 *
 * @example
 * constructor(@Inject(API_KEYS) private readonly keys: ApiKeys) {}
 */
export const API_KEYS: unique symbol = Symbol.for('latchkey.nest.keys')

/** Injects the `Gatekeeper` of the application. In every copy of this package. */
export const GATEKEEPER: unique symbol = Symbol.for('latchkey.nest.gatekeeper')
