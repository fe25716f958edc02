import express, { type Request, type Router } from 'express'
import { type ApiKey, type ApiKeys, keyStatus, missingPermissions, type Permissions } from 'latchkey'
import { requireSession } from 'latchkey/express'
import { sendProblem } from './problem.ts'
import { ownerOf, userOf } from './users.ts'

/** Routes for a user's own keys. Every route needs a login session: a key cannot make another key. */
export function ownKeys(keys: ApiKeys): Router {
  const router = express.Router()
  router.use(requireSession())

  router.post('/', async (req, res) => {
    const user = userOf(req)
    const asked = readKeyRequest(req)
    if (!asked) {
      sendProblem(res, 400, 'Expected JSON like {"name":"CI","permissions":{"projects":["read"]}}')
    } else if (missingPermissions(user.permissions, asked.permissions)) {
      sendProblem(res, 403, 'A key cannot have more permissions than you')
    } else {
      const { key, apiKey } = await keys.issue({ ...asked, owner: ownerOf(user), by: user.id })
      res.status(201).json({ key, ...summaryOf(apiKey) })
    }
  })

  router.get('/', async (req, res) => {
    const { apiKeys } = await keys.list({ owner: ownerOf(userOf(req)), limit: 1_000 })
    res.json({ keys: apiKeys.map(summaryOf) })
  })

  router.delete('/:id', async (req, res) => {
    const user = userOf(req)
    const { id } = req.params
    const apiKey = await keys.get(id)
    // The response for another user's key is the same as for one that does not exist.
    if (!apiKey || !isOwnedBy(apiKey, user.id)) {
      sendProblem(res, 404, 'There is no such key')
    } else {
      await keys.revoke(id, { by: user.id })
      res.status(204).end()
    }
  })

  return router
}

interface KeyRequest {
  name: string
  permissions: Permissions
}

/** Reads the request for a key; null if it is not valid. */
function readKeyRequest(req: Request): KeyRequest | null {
  const { name, permissions = { projects: ['read'] } } = (req.body ?? {}) as Record<string, unknown>
  const isName = typeof name === 'string' && name.trim() !== '' && name.length <= 100
  return isName && isPermissions(permissions) ? { name: name.trim(), permissions } : null
}

function isPermissions(value: unknown): value is Permissions {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const lists: unknown[] = Object.values(value)
  return lists.every(
    (actions) =>
      Array.isArray(actions) &&
      actions.length > 0 &&
      actions.length <= 20 &&
      actions.every((action) => typeof action === 'string'),
  )
}

function isOwnedBy({ owner }: ApiKey, userId: string): boolean {
  return owner.type === 'user' && owner.id === userId
}

/** The parts of a key that its owner needs to recognise it. */
function summaryOf(apiKey: ApiKey) {
  const { id, name, hint, permissions, createdAt, lastUsedAt } = apiKey
  return { id, name, hint, permissions, status: keyStatus(apiKey, new Date()), createdAt, lastUsedAt }
}
