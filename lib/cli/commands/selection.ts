import type { Command } from 'commander'
import { KEY_STATUSES } from '../../core/keys/record.ts'
import type { KeySelection } from '../../core/manage/key-management.ts'
import { collect, parseMoment, parseOwner, parseWord } from '../parse-values.ts'

/** The options that choose keys, as they are written. */
export interface SelectionOptions {
  readonly owner?: readonly string[]
  readonly createdBy?: string
  readonly name?: string
  readonly status?: string
  readonly expiresBefore?: string
}

export function addSelection(command: Command): Command {
  return command
    .option('--owner <type:id>', 'only keys of this owner (repeat)', collect)
    .option('--created-by <who>', 'only keys that this person or program issued')
    .option('--name <name>', 'only keys with exactly this name')
    .option('--status <status>', `only keys that are ${KEY_STATUSES.join(', ')}`)
    .option('--expires-before <when>', 'only keys that expire before then: 14d, 2027-01-31')
}

/** @throws CliError */
export function readSelection(options: SelectionOptions, now: number): KeySelection {
  const { owner, createdBy, name, status, expiresBefore } = options
  return {
    ...(owner && { owners: owner.map((one) => parseOwner('--owner', one)) }),
    ...(createdBy !== undefined && { createdBy }),
    ...(name !== undefined && { name }),
    ...(status !== undefined && { status: parseWord('--status', status, KEY_STATUSES) }),
    ...(expiresBefore !== undefined && {
      expiresBefore: parseMoment('--expires-before', expiresBefore, now),
    }),
  }
}
