import { schemeOf } from '../core/digests/digest.ts'
import type { Context } from './context.ts'
import type { Session } from './open-session.ts'

/**
 * Says if the latest key has a pepper that this configuration lacks: new keys would be stored without one, or under another, and
 * nobody would notice, because they work.
 */
export async function warnOfMissingPepper({ output }: Context, { store, pepperIds }: Session): Promise<void> {
  if (!store || !pepperIds) return
  const [latest] = await store.store.list({}, { limit: 1, order: 'newest' })
  const pepper = latest && schemeOf(latest.digest).pepper
  if (!pepper || pepperIds.includes(pepper)) return
  output.note(
    `warning: the latest key has a digest with the pepper "${pepper}", which this configuration does not have: add it to "peppers"`,
  )
}
