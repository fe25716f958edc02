import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { Request } from 'express'
import type { ApiKey, Owner, Permissions } from 'latchkey'
import { getAuth } from 'latchkey/passport'

/** A person who may log in. */
export interface User {
  readonly id: string
  readonly username: string
  /** What the person may do. Their keys get no more permissions than this. */
  readonly permissions: Permissions
}

export interface Users {
  find(id: string): User | null
  /** The user with this name and password, or null. */
  checkPassword(username: string, password: string): Promise<User | null>
}

/** Two people, for trying things out. A real application has a table of them, and no password in its source. */
export const DEMO_PASSWORDS = { ada: 'analytical-engine', grace: 'nanosecond-wire' } as const

export async function createDemoUsers(): Promise<Users> {
  const accounts = await Promise.all([
    createAccount({ id: 'u_1', username: 'ada', permissions: { projects: ['read', 'write'] } }),
    createAccount({ id: 'u_2', username: 'grace', permissions: { projects: ['read'] } }),
  ])
  const nobody = { user: null, ...(await hashNewPassword(randomBytes(32).toString('hex'))) }

  return {
    find: (id) => accounts.find(({ user }) => user.id === id)?.user ?? null,
    async checkPassword(username, password) {
      // For an unknown name, do the same work, so that the response time reveals nothing.
      const { user, salt, hash } = accounts.find((account) => account.user.username === username) ?? nobody
      return timingSafeEqual(await hashPassword(password, salt), hash) ? user : null
    },
  }
}

/** The user of a request that passed a guard, by session or by key. */
export function userOf(req: Request): User {
  const auth = getAuth<User>(req)
  if (auth.method === 'session' || auth.method === 'apikey') return auth.user
  throw new Error('This route needs a guard')
}

/** The user as an owner of keys. */
export function ownerOf(user: User): Owner {
  return { type: 'user', id: user.id }
}

/** Finds the user a key belongs to, for `resolveUser`. */
export function ownerFinder(users: Users): (apiKey: ApiKey) => User | null {
  return ({ owner }) => (owner.type === 'user' ? users.find(owner.id) : null)
}

async function createAccount(user: User & { username: keyof typeof DEMO_PASSWORDS }) {
  return { user, ...(await hashNewPassword(DEMO_PASSWORDS[user.username])) }
}

async function hashNewPassword(password: string) {
  const salt = randomBytes(16)
  return { salt, hash: await hashPassword(password, salt) }
}

const runScrypt = promisify<string, Buffer, number, Buffer>(scrypt)

function hashPassword(password: string, salt: Buffer): Promise<Buffer> {
  return runScrypt(password, salt, 32)
}
