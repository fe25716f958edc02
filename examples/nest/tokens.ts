/** Names under which the application's parts are injected; explicit, so that no compiler has to emit types. */
export const API_KEYS = Symbol('API_KEYS')
export const USERS = Symbol('USERS')
