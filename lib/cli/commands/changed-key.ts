import type { ApiKey } from '../../core/keys/record.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import type { Session } from '../open-session.ts'
import { parseInteger } from '../parse-values.ts'

/** The options of whoever changes a key. */
export interface ChangeOptions {
  readonly by?: string
  readonly expectedVersion?: string
}

/** @throws CliError */
export function readChange({ by, expectedVersion }: ChangeOptions): {
  by?: string
  expectedVersion?: number
} {
  return {
    ...(by !== undefined && { by }),
    ...(expectedVersion !== undefined && {
      expectedVersion: parseInteger('--expected-version', expectedVersion, 1, Number.MAX_SAFE_INTEGER),
    }),
  }
}

/** Makes a change, and says what it did and when it holds everywhere. */
export async function makeChange(
  { output }: Context,
  session: Session,
  what: (apiKey: ApiKey) => string,
  change: () => Promise<ApiKey>,
): Promise<number> {
  const apiKey = await change()
  const effectiveAt = await whenEffective(session)
  if (output.isJson) await output.printJson({ apiKey, effectiveAt: effectiveAt.at })
  else await output.say(`${what(apiKey)} ${effectiveAt.text}`)
  return EXIT.ok
}

/** When a change that was just made holds everywhere. */
export async function whenEffective({ keys, changes }: Session): Promise<{ at: Date | null; text: string }> {
  const changedAt = Date.now()
  // Whether processes share their limiter is compared in the background.
  await keys.flush().catch(() => {})
  return { at: changes.effectiveAt(changedAt), text: changes.describe(changedAt) }
}
