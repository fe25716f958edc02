/** Registers a test: `test` of node:test, vitest or Jest, `it` of Mocha. */
export type TestFunction = (name: string, run: () => Promise<void>) => unknown

/** The functions of `node:assert/strict` that the kits use. `node:assert` works too. */
export interface TestAssert {
  ok(value: unknown, message?: string): void
  strictEqual(actual: unknown, expected: unknown, message?: string): void
  deepStrictEqual(actual: unknown, expected: unknown, message?: string): void
}
