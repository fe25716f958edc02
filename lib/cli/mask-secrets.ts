import { holdsKey } from '../internal/key-text.ts'

const MASK = '***'
/** `user:password@` in the address of a server. The password may hold `@`: the last one ends it. */
const CREDENTIALS = /([a-z][a-z0-9+.-]*:\/\/[^\s/?#:@]*):[^\s/?#]*@/gi
/** Passwords and tokens among the parameters of an address. */
const PARAMETERS = /([?&](?:password|pwd|pass|auth|authtoken|token|sslpassword)=)[^&\s"']*/gi
/** Shorter ones would mask parts of words. They are masked in addresses all the same. */
const SHORTEST = 4
/** The search for keys takes time by length. */
const LONGEST = 10_000

/** A text without passwords: those of addresses in it, and the given ones wherever they are. */
export function maskSecrets(text: string, passwords: Iterable<string> = []): string {
  let masked = maskAddresses(text)
  for (const password of passwords) {
    if (password.length >= SHORTEST) masked = masked.replaceAll(password, MASK)
  }
  return masked.length > LONGEST || holdsKey(masked) ? hideKeys(masked.slice(0, LONGEST)) : masked
}

function maskAddresses(text: string): string {
  return text.replace(CREDENTIALS, `$1:${MASK}@`).replace(PARAMETERS, `$1${MASK}`)
}

function hideKeys(text: string): string {
  return text.replace(/[\w-]*_[0-9A-Za-z]{16}_[0-9A-Za-z]{43,}/g, MASK)
}

/** What is secret about a word of the command line; null for nothing. */
export function secretIn(word: string): 'key' | 'password' | null {
  if (word.length <= LONGEST && holdsKey(word)) return 'key'
  return maskAddresses(word) === word ? null : 'password'
}
