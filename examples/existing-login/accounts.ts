import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'

/** Who may log in, by name and password. A real application has a table of them. */
export interface Accounts<Person> {
  find(id: string): Person | null
  /** The person with this name and password, or null. */
  checkPassword(username: string, password: string): Promise<Person | null>
  /** Replaces the stored person. */
  save(person: Person): void
  remove(id: string): void
}

/** Keeps people in memory, with only the scrypt hash of each password. */
export async function createAccounts<Person extends { id: string; username: string }>(
  people: readonly Person[],
  passwords: Readonly<Record<string, string>>,
): Promise<Accounts<Person>> {
  const known = new Map(people.map((person) => [person.id, person]))
  const hashes = new Map<string, PasswordHash>()
  for (const { id, username } of people) {
    const password = passwords[username]
    if (password === undefined) throw new Error(`${username} has no password`)
    hashes.set(id, await hashNewPassword(password))
  }
  const nobodys = await hashNewPassword(randomBytes(32).toString('hex'))

  return {
    find: (id) => known.get(id) ?? null,
    async checkPassword(username, password) {
      const person = [...known.values()].find((one) => one.username === username)
      // For an unknown name, do the same work, so that the response time reveals nothing.
      const { salt, hash } = (person && hashes.get(person.id)) ?? nobodys
      const isRight = timingSafeEqual(await hashPassword(password, salt), hash)
      return isRight && person ? person : null
    },
    save: (person) => void known.set(person.id, person),
    remove: (id) => void known.delete(id),
  }
}

interface PasswordHash {
  readonly salt: Buffer
  readonly hash: Buffer
}

async function hashNewPassword(password: string): Promise<PasswordHash> {
  const salt = randomBytes(16)
  return { salt, hash: await hashPassword(password, salt) }
}

const runScrypt = promisify<string, Buffer, number, Buffer>(scrypt)

function hashPassword(password: string, salt: Buffer): Promise<Buffer> {
  return runScrypt(password, salt, 32)
}
