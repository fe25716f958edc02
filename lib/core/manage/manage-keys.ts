import { createUsageReport } from '../usage/report-usage.ts'
import { createUnusedPermissions } from '../usage/unused-permissions.ts'
import { KeyChanges } from './change-keys.ts'
import { createKeyCounts } from './count.ts'
import { createOwnerErasure } from './erase.ts'
import { createKeyImport } from './import-keys.ts'
import { createOwnerInvalidation } from './invalidate-owner.ts'
import { createIssue } from './issue.ts'
import type { KeyManagement } from './key-management.ts'
import { createKeyListing } from './list.ts'
import type { ManagementParts } from './management-parts.ts'
import { createNewKey } from './new-key.ts'
import { createPurge } from './purge.ts'
import { createRevocation } from './revoke.ts'
import { createRotate } from './rotate.ts'
import { createUpdate } from './update.ts'

/** Composes the verbs, each of which has a file. */
export function createKeyManagement(parts: ManagementParts): Omit<KeyManagement, 'acceptConfiguration'> {
  const changes = new KeyChanges(parts)
  const newKey = createNewKey(parts)
  const { revokeSilently, ...revocation } = createRevocation(parts, changes)

  const unusedPermissions = createUnusedPermissions({ ...parts, findById: (id) => changes.findById(id) })

  return {
    issue: createIssue(parts, newKey),
    ...createKeyImport(parts),
    async get(id) {
      const record = await changes.findById(id)
      return record && changes.view(record)
    },
    list: createKeyListing({ ...parts, view: (record, at) => changes.view(record, at) }),
    ...createKeyCounts(parts, changes),
    ...createUpdate(parts, changes),
    ...revocation,
    rotate: createRotate(parts, changes, newKey, unusedPermissions),
    purge: createPurge(parts, changes),
    erase: createOwnerErasure({ ...parts, revokeSilently }, changes),
    invalidateOwner: createOwnerInvalidation(parts, changes),
    usage: createUsageReport(parts),
    unusedPermissions: async (id, options = {}) => unusedPermissions(id, options, parts.clock.now()),
  }
}
