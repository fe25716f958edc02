/** The injection tokens of the application's parts. They are explicit, so that no compiler has to emit types. */
export const API_KEYS = Symbol('API_KEYS')
export const USERS = Symbol('USERS')
