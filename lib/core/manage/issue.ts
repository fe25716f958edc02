import { checkObject, checkShownText } from '../../internal/options.ts'
import { BOUNDS } from '../keys/bounds.ts'
import { checkKeyId, checkPrefix } from '../keys/key-format.ts'
import { checkSettings, DEFAULT_SETTINGS, SETTINGS } from '../keys/key-settings.ts'
import { checkOwner, keyStatus, toApiKey } from '../keys/record.ts'
import { startQuota } from '../limits/quota.ts'
import { requireCapabilities } from '../store-access.ts'
import { checkLimitNames } from './check-limit-names.ts'
import { insertConfirmed } from './insert-confirmed.ts'
import type { IssuedKey, IssueOptions, KeyManagement } from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'
import type { NewKey } from './new-key.ts'

export function createIssue(parts: ManagementParts, newKey: NewKey): KeyManagement['issue'] {
  const { store, cache, clock, emit } = parts

  return async function issue(options: IssueOptions): Promise<IssuedKey> {
    checkObject('options', options, ['id', 'owner', 'by', 'createdBy', 'prefix', ...SETTINGS])
    const at = new Date(clock.now())
    const owner = checkOwner('owner', options.owner)
    const createdBy = checkCreator(options)
    const prefix = options.prefix === undefined ? parts.prefix : checkPrefix('prefix', options.prefix)
    checkShownText('name', options.name, BOUNDS.name.max)
    const settings = checkSettings(options, at.getTime())
    requireCapabilities(store, settings)
    await checkLimitNames(parts, settings, () => owner)
    const id = options.id === undefined ? null : checkKeyId('id', options.id)
    const { quota, ...rest } = settings
    const { key, record } = await newKey(id, at, {
      ...DEFAULT_SETTINGS,
      ...rest,
      name: options.name,
      prefix,
      owner,
      createdBy,
      quota: quota ? startQuota(quota, null, at) : null,
      createdAt: at,
      updatedAt: at,
    })
    await insertConfirmed(store, [record])
    cache.forgetMissing(record.lookup)
    const apiKey = toApiKey(record, keyStatus(record, at))
    emit({ type: 'key.issued', at, keyId: record.id, owner, by: createdBy, before: null, apiKey })
    return { key, apiKey }
  }
}

function checkCreator({ by, createdBy }: IssueOptions): string | null {
  if (by !== undefined && createdBy !== undefined) {
    throw new TypeError('"createdBy" is an old name of "by": give "by" only')
  }
  const [name, value] = createdBy === undefined ? ['by', by] : ['createdBy', createdBy]
  return value == null ? null : checkShownText(name, value, BOUNDS.createdBy.max)
}
