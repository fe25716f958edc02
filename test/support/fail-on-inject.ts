/** Makes `inject(name)` throw in this test file. Vitest itself would answer undefined for what was not provided. */
export function failOnInject(name: string, reason: string): void {
  // Vitest has no say in what it injects once the tests run; a test of this function notices when this moves.
  const { providedContext } = (globalThis as unknown as VitestWorker).__vitest_worker__
  Object.defineProperty(providedContext, name, {
    configurable: true,
    get() {
      throw new Error(reason)
    },
  })
}

interface VitestWorker {
  __vitest_worker__: { providedContext: object }
}
