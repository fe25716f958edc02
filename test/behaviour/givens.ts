import { rejects } from '../support/recording-store.ts'
import type { World } from './world.ts'

/** What may have come to pass before a request, by the words that the page tells it with. */
export const GIVENS = {
  'the key is cached': async ({ keys, tokens }) => {
    await keys.verify(tokens.of('key'), { cost: 0, ip: LOOPBACK })
  },
  'the key has been used once': async ({ keys, tokens }) => {
    await keys.verify(tokens.of('key'), { ip: LOOPBACK })
  },
  'the key is revoked': ({ keys, tokens }) => keys.revoke(tokens.of('key id')),
  'the key is disabled': ({ keys, tokens }) => keys.disable(tokens.of('key id')),
  'an hour has passed': ({ clock }) => clock.advance(3_600_000),
  'the store is down': ({ store }) => store.fail('find', rejects(new Error('the store is down'))),
  'the limiter is down': ({ limiter }) => limiter.fail(),
  'the address sent an unknown key': async ({ keys, tokens }) => {
    await keys.verify(tokens.of('unknown key'), { ip: LOOPBACK })
  },
} as const satisfies Record<string, (world: World) => unknown>

export type Given = keyof typeof GIVENS

/** Where the requests of the tests come from. */
export const LOOPBACK = '127.0.0.1'
