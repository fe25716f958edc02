import type { Owner, Permissions } from 'latchkey'
import { type Accounts, createAccounts } from './accounts.ts'

/** A user, as this application had them before it had keys. */
export interface User {
  readonly id: string
  readonly username: string
  readonly isAdmin: boolean
  /** What the user may do. */
  readonly permissions: Permissions
}

export type Users = Accounts<User>

/** For trying things out. A real application has no password in its source. */
export const DEMO_PASSWORDS = {
  ada: 'analytical-engine',
  grace: 'nanosecond-wire',
  hedy: 'frequency-hopping',
} as const

export function createDemoUsers(): Promise<Users> {
  return createAccounts<User>(
    [
      {
        id: 'u_1',
        username: 'ada',
        isAdmin: false,
        permissions: { notes: ['read', 'write'], account: ['close'] },
      },
      { id: 'u_2', username: 'grace', isAdmin: false, permissions: { notes: ['read'] } },
      { id: 'u_3', username: 'hedy', isAdmin: true, permissions: {} },
    ],
    DEMO_PASSWORDS,
  )
}

/** The user as an owner of keys. */
export function ownerOf({ id }: User): Owner {
  return { type: 'user', id }
}

/** The user who owns a key. */
export function findOwner(users: Users, owner: Owner): User | null {
  return owner.type === 'user' ? users.find(owner.id) : null
}
