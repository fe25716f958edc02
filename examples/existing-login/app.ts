import express, { type Express } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, markSession, withApiKey } from 'latchkey/express'
import { answerError, sendProblem } from '../express/problem.ts'
import { login } from './login.ts'
import { manageKeys } from './manage-keys.ts'
import { findOwner, type Users } from './users.ts'

export interface AppOptions {
  keys: ApiKeys
  users: Users
}

/** An application that already had a login, and now has keys. */
export function createApp({ keys, users }: AppOptions): Express {
  const notes = new Map<string, string[]>([['u_1', ['weave algebraic patterns']]])
  const app = express()
  app.disable('x-powered-by')

  app.use((_req, res, next) => {
    // A cache in between does not know that responses depend on X-Api-Key.
    res.setHeader('Cache-Control', 'private')
    next()
  })
  app.use(login(users))
  // New with keys: mark the logged-in user, and let them manage keys.
  app.use(markSession())
  app.use('/api-keys', manageKeys(keys, users))

  // Keys only: for the users' programs.
  app.use('/notes', apiKeyAuth(keys, { resolveUser: ({ owner }) => findOwner(users, owner) }))
  app.get(
    '/notes',
    withApiKey((req, res) => void res.json({ notes: notes.get(req.apiKey.owner.id) ?? [] }), {
      permissions: { notes: ['read'] },
    }),
  )
  app.post(
    '/notes',
    express.json({ limit: '10kb' }),
    withApiKey(
      (req, res) => {
        const text: unknown = req.body?.text
        if (typeof text !== 'string' || text.trim() === '' || text.length > 1_000) {
          sendProblem(res, 400, 'Expected JSON like {"text":"call Charles"}')
          return
        }
        const { id } = req.apiKey.owner
        notes.set(id, [...(notes.get(id) ?? []), text.trim()])
        res.status(201).json({ text: text.trim() })
      },
      { permissions: { notes: ['write'] } },
    ),
  )

  app.use((_req, res) => sendProblem(res, 404, 'Not found'))
  app.use(apiKeyErrorHandler(), answerError)
  return app
}
