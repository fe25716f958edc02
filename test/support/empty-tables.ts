const TABLES = ['', '_quotas', '_agreements', '_usage', '_usage_writers'].map((end) => `latchkey_keys${end}`)

/** Statements that empty the tables of a store. */
export const DELETE_ALL: readonly string[] = TABLES.map((table) => `delete from ${table}`)

/** The same for PostgreSQL, in one. */
export const TRUNCATE_ALL = `truncate ${TABLES.join(', ')}`
