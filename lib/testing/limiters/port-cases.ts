import type { LimiterCases } from './limiter-test.ts'

export const PORT_CASES: LimiterCases = {
  'has the optional members of the port as they are documented': async ({ limiter, holds }) => {
    const { timeoutMs, sharedAs } = limiter
    const isDuration = timeoutMs === undefined || (Number.isFinite(timeoutMs) && timeoutMs > 0)
    holds(isDuration, '"timeoutMs" is a positive number of milliseconds, if there is one')
    const isName = sharedAs === undefined || (typeof sharedAs === 'string' && /^.{1,255}$/u.test(sharedAs))
    holds(isName, '"sharedAs" is a text of 1 to 255 characters, if there is one')
    const stop = limiter.listen?.(() => {})
    holds(stop === undefined || typeof stop === 'function', '"listen" returns a function that ends it')
    stop?.()
  },

  'forgets a lineage that it does not hold': async ({ limiter, ask, same }) => {
    limiter.forget?.('nobody')
    same((await ask({})).outcome, 'admitted', '"forget" of an unknown lineage does nothing')
  },
}
