import type { IssuedKey } from '../core/manage/key-management.ts'
import { CliError, OutputError, usageError } from './cli-error.ts'
import type { Context } from './context.ts'
import { firstLine } from './describe-error.ts'
import { EXIT } from './exit-codes.ts'
import type { Session } from './open-session.ts'

/** Refuses to make a key that nobody would see. @throws CliError */
export function refuseLostOutput({ io }: Context): void {
  if (!io.isOutputLost) return
  throw usageError('standard output goes nowhere: the new key would be lost')
}

/**
 * Writes a new key, the only time that it can be read. A key that cannot be written is in nobody's hands: it is revoked.
 *
 * @throws CliError
 */
export async function handOver(
  session: Session,
  { apiKey }: IssuedKey,
  write: () => Promise<void>,
  consequence = '',
): Promise<void> {
  try {
    await write()
  } catch (error) {
    if (!(error instanceof OutputError)) throw error
    await revokeLost(session, apiKey.id)
    throw new CliError(
      `standard output cannot be written (${firstLine(error.cause)}): the new key ${apiKey.id} is lost, and was revoked${consequence}`,
      EXIT.failed,
    )
  }
}

/** @throws CliError that names the key, so that somebody can revoke it. */
async function revokeLost({ keys }: Session, id: string): Promise<void> {
  try {
    await keys.revoke(id, { reason: 'its text could not be written' })
  } catch (error) {
    const problem = `the new key ${id} is lost and could not be revoked (${firstLine(error)})`
    throw new CliError(`${problem}: run "latchkey revoke ${id}"`, EXIT.failed)
  }
}
