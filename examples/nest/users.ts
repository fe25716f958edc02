import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'

/** A person who may log in. */
export interface User {
  readonly id: string
  readonly username: string
}

/** The injection token of `Users`. It is explicit, so that no compiler has to emit types. */
export const USERS = Symbol('USERS')

export interface Users {
  find(id: string): User | null
  /** The user with this name and password, or null. */
  checkPassword(username: string, password: string): User | null
}

/** One person, for trying things out. A real application has a table of them, and no password in its source. */
export const DEMO_LOGIN = { username: 'ada', password: 'analytical-engine' } as const

export function createDemoUsers(): Users {
  const ada: User = { id: 'u_1', username: DEMO_LOGIN.username }
  const salt = randomBytes(16)
  const hash = scryptSync(DEMO_LOGIN.password, salt, 32)
  return {
    find: (id) => (id === ada.id ? ada : null),
    checkPassword(username, password) {
      // For an unknown name, do the same work, so that the response time reveals nothing.
      const isRight = timingSafeEqual(scryptSync(password, salt, 32), hash)
      return isRight && username === ada.username ? ada : null
    },
  }
}
